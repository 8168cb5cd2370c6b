// Converts files to pictures that the gateway accepts.

import { Problem } from "./api.js";
import { bytes } from "./dom.js";

const MAX_BYTES = Number(document.documentElement.dataset.maxUploadBytes);
const LONGEST_EDGE = 3000; // up to 9 megapixels: more than the network sees, less than gateways refuse
const LOSSLESS_PIXELS = 512 * 512;

/** How files begin that the service reads. It looks at more than that, and says what is wrong with them. */
const ACCEPTED = new RegExp([
  "\\x89PNG\\r\\n\\x1a\\n", "\\xff\\xd8\\xff", "RIFF....WEBP", "GIF8[79]a", "BM", "II\\*\\0", "MM\\0\\*",
  "....ftyp(?:avi[fs]|hei[cmsx]|hev[cmsx]|mif1|msf1)",
].map((beginning) => `^${beginning}`).join("|"), "s");

/** {picture, name, note}: the file itself, or a converted picture if the service would not read the file. */
export async function prepare(file, smaller = false) {
  if (!file.size) throw empty();
  if (smaller) return shrink(file);
  if (!ACCEPTED.test(await head(file))) return prepareOther(file);
  if (file.size > MAX_BYTES) throw tooLarge(file);
  return { picture: new Blob([file]), name: file.name, note: "" }; // without a type: the first bytes tell it
}

/** The first bytes, a character for each. */
async function head(file) {
  try {
    return String.fromCharCode(...new Uint8Array(await file.slice(0, 12).arrayBuffer()));
  } catch {
    throw new Problem({ title: "The file cannot be read", detail: "It may be a folder, or have been deleted." });
  }
}

async function prepareOther(file) {
  try {
    return await convert(file, `converted from ${kindOf(file)} by this page`);
  } catch {
    if (file.size > MAX_BYTES) throw tooLarge(file);
    return { picture: file, name: file.name, note: "" }; // the service says what it is
  }
}

async function shrink(file) {
  try {
    return await convert(file, "made smaller by this page");
  } catch {
    throw new Problem({
      title: `This browser cannot read ${kindOf(file)}`,
      detail: "So it cannot make the picture smaller. Save it as a JPEG with fewer pixels.",
      status: 415,
    });
  }
}

async function convert(file, note) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_EDGE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const ending = canvas.width * canvas.height <= LOSSLESS_PIXELS ? "png" : "jpeg";
  const picture = await new Promise((done) => canvas.toBlob(done, `image/${ending}`, 0.92));
  if (!picture) throw new Problem({ title: "This browser could not convert the picture" });
  const name = `${file.name.replace(/\.\w+$/, "")}.${ending}`;
  return { picture, name: name === file.name ? `sent-${name}` : name, note };
}

function kindOf(file) {
  const ending = file.name.includes(".") ? file.name.split(".").pop() : "";
  const type = file.type.split("/")[1]?.replace(/^(x-|vnd\.(microsoft\.)?)|\+.*/g, "");
  return (type || ending || "another format").toUpperCase();
}

function tooLarge(file) {
  return new Problem({
    title: "Picture too large",
    detail: `It has ${bytes(file.size)}; at most ${bytes(MAX_BYTES)} are accepted.`,
    status: 413,
  });
}

function empty() {
  return new Problem({
    title: "The file is empty",
    detail: "It has 0 bytes: it may not have been saved or downloaded to the end. Save it again.",
    status: 422,
  });
}

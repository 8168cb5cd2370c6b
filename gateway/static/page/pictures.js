// Converts files to pictures that the gateway accepts.

import { Problem } from "./api.js";
import { bytes } from "./dom.js";

const MAX_BYTES = Number(document.documentElement.dataset.maxUploadBytes);
const LONGEST_EDGE = 3000; // up to 9 megapixels: more than the network sees, less than gateways refuse
const LOSSLESS_PIXELS = 512 * 512;

/** {picture, name, note}: the file itself, or a converted picture if the gateway would refuse the file. */
export async function prepare(file, smaller = false) {
  if (smaller) return convert(file, "made smaller by this page");
  const type = accepted(await head(file));
  if (!type) return prepareOther(file);
  if (file.size > MAX_BYTES) throw tooLarge(file);
  const picture = file.type === type ? file : new Blob([file], { type });
  return { picture, name: file.name, note: "" };
}

async function head(file) {
  try {
    return new Uint8Array(await file.slice(0, 12).arrayBuffer());
  } catch {
    throw new Problem({ title: "The file cannot be read", detail: "It may be a folder, or have been deleted." });
  }
}

/** The media type according to the first bytes, or "" if the gateway does not accept it. */
function accepted(head) {
  const text = String.fromCharCode(...head);
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (text.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (text.startsWith("RIFF") && text.endsWith("WEBP")) return "image/webp";
  return "";
}

async function prepareOther(file) {
  const kind = kindOf(file);
  try {
    return await convert(file, `converted from ${kind} by this page`);
  } catch {
    if (/^image\/|\.(heic|heif|avif|tiff?)$/i.test(file.type || file.name)) throw unreadable(kind);
    if (file.size > MAX_BYTES) throw tooLarge(file);
    return { picture: file, name: file.name, note: "" }; // the gateway reports what is wrong with it
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
  return (file.type.split("/")[1] || ending || "another format").replace(/\+.*/, "").toUpperCase();
}

function tooLarge(file) {
  return new Problem({
    title: "Picture too large",
    detail: `It has ${bytes(file.size)}; at most ${bytes(MAX_BYTES)} are accepted.`,
    status: 413,
  });
}

function unreadable(kind) {
  const phone = /HEI[CF]/.test(kind)
    ? " On an iPhone, choose Settings > Camera > Formats > Most Compatible to take photos as JPEG."
    : "";
  return new Problem({
    title: `This browser cannot read ${kind}`,
    detail: `Neither can the service. Send the picture as PNG, JPEG or WebP.${phone}`,
    status: 415,
  });
}

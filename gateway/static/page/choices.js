// The choice of the model and of the kind of picture, by the user or by the page.

import { byId, element } from "./dom.js";
import { pictureModels } from "./models.js";

const FOR_PHOTOS = "clothing-photo";
const DATA_SET_EDGE = 28;
const BLACK = 8; // as much grey as the black border of a picture of the data set may have, and as much colour

/** The query parameters of POST /predict; empty values stand for the defaults. */
export function query() {
  return { model: byId("model").value, mode: byId("mode-label").hidden ? "" : byId("mode").value, explain: "input" };
}

/** Whether the page has models to choose from: the default one for pictures like the data set's, and one for photos. */
function canChoose() {
  const [first, ...others] = pictureModels();
  return first?.kind === "garment" && others.some(({ name }) => name === FOR_PHOTOS);
}

/** Offers the models that take pictures, once they are known. */
export function offerModels() {
  const options = pictureModels().map((model) => {
    const accuracy = model.accuracy === null ? "" : ` (${(100 * model.accuracy).toFixed(1)} % accurate)`;
    return element("option", { value: model.default && !canChoose() ? "" : model.name }, model.name + accuracy);
  });
  if (canChoose()) options.unshift(element("option", { value: "" }, "Automatic, by the picture"));
  const before = byId("model").value;
  byId("model").replaceChildren(...options);
  byId("model").value = before;
  if (byId("model").selectedIndex < 0) byId("model").selectedIndex = 0;
  offerModes();
}

/** Only models of clothing as in Fashion-MNIST prepare pictures in several ways. */
export function offerModes() {
  const { value } = byId("model");
  const model = pictureModels().find(({ name, default: isDefault }) => (value ? name === value : isDefault && !canChoose()));
  byId("mode-label").hidden = model?.kind !== "garment";
}

/**
 * {query, why}: the query with the model that suits the picture, if the user left that to the page, and the
 * reason in words. A picture like those of Fashion-MNIST goes to the default model: one of 28 x 28 pixels, or a
 * square grey one with a black border. All others go to clothing-photo, if it is served.
 */
export async function suiting(picture, asked) {
  if (asked.model || !canChoose()) return { query: asked, why: "" };
  const like = await isLikeTheDataSet(picture);
  if (like) return { query: asked, why: "because the picture is like its data set" };
  return { query: { ...asked, model: FOR_PHOTOS }, why: "because this looks like a photo" };
}

async function isLikeTheDataSet(picture) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(picture);
  } catch {
    return false; // browsers cannot read every photo, such as HEIC; the service says so if it is none
  }
  const { width, height } = bitmap;
  const context = Object.assign(document.createElement("canvas"), { width: DATA_SET_EDGE, height: DATA_SET_EDGE }).getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, DATA_SET_EDGE, DATA_SET_EDGE);
  context.drawImage(bitmap, 0, 0, DATA_SET_EDGE, DATA_SET_EDGE);
  bitmap.close();
  if (width !== height) return false;
  return width === DATA_SET_EDGE || isGreyOnBlack(context.getImageData(0, 0, DATA_SET_EDGE, DATA_SET_EDGE).data);
}

/** Whether pixels, RGBA row by row, are all grey, and most of those at the border black. */
function isGreyOnBlack(pixels) {
  const border = [];
  for (let at = 0; at < pixels.length; at += 4) {
    const colours = pixels.subarray(at, at + 3);
    if (Math.max(...colours) - Math.min(...colours) > BLACK) return false;
    const [x, y] = [(at / 4) % DATA_SET_EDGE, Math.floor(at / 4 / DATA_SET_EDGE)];
    if (Math.min(x, y) === 0 || Math.max(x, y) === DATA_SET_EDGE - 1) border.push(colours[0]);
  }
  return border.sort((one, other) => one - other)[border.length >> 1] <= BLACK;
}

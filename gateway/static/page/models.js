// What the service serves: whether it is ready, its models, and their table.

import { isReady, listModels } from "./api.js";
import { byId, element, sentence } from "./dom.js";
import { askForKey } from "./key.js";

const AGAIN_S = 2;
const KINDS = { garment: "clothing, 28 × 28 grey", image: "pictures", tensor: "numbers" };

let known = [];

/** The models for pictures, the default one first. Empty until they are known. */
export function pictureModels() {
  return known.filter((model) => isServed(model) && model.kind !== "tensor").sort((one, other) => other.default - one.default);
}

let settle;

/** Resolves when the models are known for the first time, or it is clear that they cannot be known yet. */
export const looked = new Promise((done) => (settle = done));

let watching = null;

/** Shows a banner until the service is ready; resolves then. Several callers wait together. */
export function whenReady() {
  watching ??= watch().finally(() => (watching = null));
  return watching;
}

async function watch() {
  for (;;) {
    const { reason, againS } = await isReady();
    if (reason === null) break;
    settle();
    const seconds = Math.max(againS ?? AGAIN_S, 1);
    say(`Not ready yet. ${sentence(reason)} The page checks again every ${seconds} s.`);
    await new Promise((done) => setTimeout(done, seconds * 1000));
  }
  say("");
}

let loading = null;

/** Loads the models once, when the service is ready; after a failure such as a missing key, the next call tries again. */
export function loadModels() {
  loading ??= load().catch((problem) => {
    loading = null;
    if (problem.status !== 401) say(`${problem.title}. ${sentence(problem.detail)}`);
    throw problem;
  });
  return loading;
}

async function load() {
  for (;;) {
    await whenReady();
    try {
      known = await listModels();
      settle();
      return;
    } catch (problem) {
      settle();
      if (problem.status === 401 && (await askForKey(problem))) continue;
      if (!problem.isTemporary) throw problem;
      await new Promise((done) => setTimeout(done, problem.retryAfterS * 1000));
    }
  }
}

function say(text) {
  const notice = byId("notice");
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}

/** Shows the table of the models, as the service describes them now. */
export async function showModels() {
  const dialog = byId("models-dialog");
  const [message, place] = [byId("models-message"), dialog.querySelector(".wide")];
  message.textContent = "Loading";
  place.replaceChildren();
  dialog.showModal();
  try {
    place.replaceChildren(table(await listModels()));
    message.textContent = "The default one answers where a call names none.";
  } catch (problem) {
    message.textContent = `${problem.title}. ${sentence(problem.detail)}`;
    if (problem.status !== 401) return;
    dialog.close();
    if (await askForKey(problem)) await showModels();
  }
}

function table(models) {
  const columns = ["Model", "Version", "Takes", "Tells apart", "Accuracy"];
  return element("table", { class: "models" },
    element("caption", { class: "unseen" }, "Models that are served"),
    element("thead", {}, element("tr", {}, columns.map((column) => element("th", { scope: "col" }, column)))),
    element("tbody", {}, models.map(row)));
}

/** Whether a version of it answers. */
function isServed({ versions = [] }) {
  return !versions.length || versions.some(({ share_percent: share }) => share > 0);
}

function row(model) {
  const { name, version, default: isDefault, kind, shape = [], labels = [], accuracy, versions = [] } = model;
  if (!isServed(model)) {
    return element("tr", {},
      element("th", { scope: "row" }, name),
      element("td", {}, version || "–"),
      element("td", { colspan: 3 }, `Not served: ${versions[0].problem}`));
  }
  const size = kind === "image" ? `, ${shape.filter((axis) => axis > 3).join(" × ")}` : "";
  return element("tr", {},
    element("th", { scope: "row" }, name, isDefault ? " " : null, isDefault ? element("span", { class: "tag" }, "default") : null),
    element("td", {}, version),
    element("td", {}, `${KINDS[kind] ?? kind}${size}`),
    element("td", { title: labels.join(", ") }, labels.length ? `${labels.length} kinds: ${labels.slice(0, 4).join(", ")}${labels.length > 4 ? ", …" : ""}` : "–"),
    element("td", { class: "figure" }, accuracy === null || accuracy === undefined ? "–" : `${(100 * accuracy).toFixed(1)}\u00a0%`));
}

// Input: dropping, pasting, choosing and taking pictures; samples; the options; the theme; the first example.

import { installCamera } from "./camera.js";
import { offerModels, offerModes } from "./choices.js";
import { byId, dismissRemark, remark } from "./dom.js";
import { installKeyForm } from "./key.js";
import { loadModels, pictureModels, showModels } from "./models.js";
import { give, giveExample, installList, offerAgain } from "./visit.js";

for (const action of ["click", "change", "drop", "paste"]) addEventListener(action, dismissRemark, { capture: true });

function take(files) {
  if (files.length) give([...files].map((file) => ({ file })));
  return files.length > 0;
}

for (const id of ["file", "camera"]) {
  byId(id).addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
}

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const picture = await sample(button.dataset.sample).catch(() => null);
    if (picture) give([picture]);
    else remark("The sample could not be loaded. Check that the service is running and that you are online.");
  });
}

async function sample(name) {
  const response = await fetch(`page/samples/${name}`, { cache: "force-cache" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const blob = await response.blob();
  return { file: new File([blob], name, { type: blob.type }), path: `samples/${name}` };
}

byId("model").addEventListener("change", offerModes);
for (const id of ["model", "mode"]) byId(id).addEventListener("change", offerAgain);
installCamera((file) => take([file]));

let inside = 0;
const dragged = (change) => {
  inside = Math.max(0, inside + change);
  document.body.classList.toggle("dragged", inside > 0);
};
addEventListener("dragenter", () => dragged(1));
addEventListener("dragleave", () => dragged(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragged(-inside);
  if (!take(event.dataTransfer.files)) remark("You dropped something other than a file.");
});

addEventListener("paste", (event) => {
  if (event.target.matches?.("input")) return;
  if (!take(event.clipboardData.files)) remark("The clipboard contains no picture.");
});

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
byId("models").addEventListener("click", showModels);

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const showTheme = () => byId("theme").setAttribute("aria-pressed", String(isDark()));
byId("theme").hidden = false;
byId("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  showTheme();
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // The browser blocks storage: the theme is kept until the page is closed.
  }
});
dark.addEventListener("change", showTheme);
showTheme();

let hasBegun = false;

/** Offers the models and, at the first time, shows what an answer looks like. */
async function begin() {
  try {
    await loadModels();
  } catch {
    return; // the page or the form for the key says so; giving a picture tries again
  }
  if (hasBegun) return;
  hasBegun = true;
  offerModels();
  const hasPhotos = pictureModels().some(({ name }) => name === "clothing-photo");
  const picture = await sample(hasPhotos ? "photo-t-shirt.jpg" : "sandal.png").catch(() => null);
  if (picture) giveExample(picture);
}

installList();
installKeyForm(begin);
begin();

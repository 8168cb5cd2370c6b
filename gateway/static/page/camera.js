// Takes a picture with a webcam. The browser asks for permission when the button is pressed, not before.

import { byId, remark } from "./dom.js";

const SIZE = { width: { ideal: 1280 }, height: { ideal: 960 }, facingMode: { ideal: "environment" } };
const REFUSED = {
  NotAllowedError: "The camera is blocked for this page. Allow it in the browser's settings for this site.",
  NotFoundError: "There is no camera any more. Connect it again.",
  NotReadableError: "Another program is using the camera. Close it and try again.",
};

let stream = null;

/** Shows the button if there is a camera and a mouse; with fingers, the phone's own camera is better. */
export async function installCamera(taken) {
  const { mediaDevices } = navigator; // undefined without HTTPS, except on localhost
  if (!mediaDevices?.getUserMedia || matchMedia("(pointer: coarse)").matches) return;
  const show = async () => {
    const devices = await mediaDevices.enumerateDevices().catch(() => []);
    byId("webcam").hidden = !devices.some(({ kind }) => kind === "videoinput");
  };
  byId("webcam").addEventListener("click", open);
  byId("webcam-take").addEventListener("click", async () => taken(await picture()));
  byId("webcam-dialog").addEventListener("close", stop);
  mediaDevices.addEventListener("devicechange", show);
  await show();
}

async function open() {
  const dialog = byId("webcam-dialog");
  const [view, take] = [byId("webcam-view"), byId("webcam-take")];
  take.disabled = true;
  byId("webcam-message").textContent = "Waiting for the camera. Your browser may ask for permission.";
  dialog.showModal();
  try {
    const found = await navigator.mediaDevices.getUserMedia({ video: SIZE });
    stream = found;
    if (!dialog.open) return stop();
    view.srcObject = found;
    await view.play();
    take.disabled = false;
    take.focus();
    byId("webcam-message").textContent = "Hold one piece of clothing up to the camera. No picture is sent until you take it.";
  } catch (error) {
    dialog.close();
    remark(REFUSED[error.name] ?? "The camera cannot be used.");
  }
}

/** What the camera shows, as a file; closes the dialog. */
async function picture() {
  const view = byId("webcam-view");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [view.videoWidth, view.videoHeight];
  canvas.getContext("2d").drawImage(view, 0, 0);
  byId("webcam-dialog").close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId("webcam-view").srcObject = null;
}

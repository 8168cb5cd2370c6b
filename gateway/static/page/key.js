// The form that asks for an API key. However many calls wait for it, it is shown once.

import { key } from "./api.js";
import { announce, byId, sentence } from "./dom.js";

let waiting = null;

/** true when there is a new key to try, false when the user does not want to give one. */
export async function askForKey(problem) {
  hideModelsLink();
  if (problem.withKey !== key.get()) return Boolean(key.get()); // another call has asked meanwhile
  const refused = Boolean(key.get());
  byId("key-hint").textContent = refused
    ? `The key was refused. ${sentence(problem.detail || problem.title)}`
    : "It is kept until this tab is closed, and sent to this service alone.";
  if (!waiting) {
    byId("key-form").hidden = false;
    announce(refused ? byId("key-hint").textContent : "This service asks for an API key");
    byId("key").focus();
    waiting = {};
    waiting.promise = new Promise((resolve) => (waiting.resolve = resolve));
  }
  return waiting.promise;
}

export function installKeyForm(keyGiven) {
  if (key.get()) hideModelsLink();
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(byId("key").value.trim());
    finish(true);
    keyGiven();
  });
  byId("key-cancel").addEventListener("click", () => {
    key.forget(); // the form is there because it was refused
    finish(false);
  });
}

/** A link cannot send a key. */
function hideModelsLink() {
  byId("models").hidden = true;
}

function finish(given) {
  byId("key-form").hidden = true;
  byId("key").value = "";
  byId("answer-title").focus({ preventScroll: true });
  const { resolve } = waiting;
  waiting = null;
  resolve(given);
}

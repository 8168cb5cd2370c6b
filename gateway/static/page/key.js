// The form for an API key. It is shown once, however many calls wait for the key.

import { key } from "./api.js";
import { announce, byId, sentence } from "./dom.js";

let waiting = null;

/** Resolves to true if there is a new key to try, and to false if the user cancels. */
export async function askForKey(problem) {
  if (problem.withKey !== key.get()) return Boolean(key.get()); // another call got a key in the meantime
  const refused = Boolean(key.get());
  byId("key-hint").textContent = refused
    ? `The key was refused. ${sentence(problem.detail || problem.title)}`
    : "The key is kept until you close this tab, and sent only to this service.";
  if (!waiting) {
    byId("key-form").hidden = false;
    announce(refused ? byId("key-hint").textContent : "This service requires an API key");
    byId("key").focus();
    waiting = {};
    waiting.promise = new Promise((resolve) => (waiting.resolve = resolve));
  }
  return waiting.promise;
}

export function installKeyForm(keyGiven) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(byId("key").value.trim());
    finish(true);
    keyGiven();
  });
  byId("key-cancel").addEventListener("click", () => {
    key.forget(); // the form is shown because the key was refused
    finish(false);
  });
}

function finish(given) {
  byId("key-form").hidden = true;
  byId("key").value = "";
  byId("answer-title").focus({ preventScroll: true });
  const { resolve } = waiting;
  waiting = null;
  resolve(given);
}

// What is asked for beside the picture: the model and the kind of picture.

import { listModels } from "./api.js";
import { byId, element, sentence } from "./dom.js";
import { askForKey } from "./key.js";

const AGAIN_S = 2;

/** As POST /predict takes it; empty is the default. */
export function query() {
  return { model: byId("model").value, mode: byId("mode").value, explain: "input" };
}

let loading = null;

/** Once. Where it failed, as for want of a key, it is tried anew at the next call. */
export function loadModels() {
  loading ??= load().then((loaded) => {
    if (!loaded) loading = null;
  });
}

/** Until a worker has said which models there are, the page says so and keeps asking. */
async function load() {
  for (;;) {
    try {
      show(await listModels());
      say("");
      return true;
    } catch (problem) {
      if (problem.status === 401 && (await askForKey(problem))) continue;
      if (!problem.isTemporary) {
        say(problem.status === 401 ? "" : `${problem.title}. ${sentence(problem.detail)}`);
        return false;
      }
      const seconds = problem.retryAfterS ?? AGAIN_S;
      say(`Not ready yet. ${sentence(problem.detail || problem.title)} Asking again every ${seconds} s.`);
      await new Promise((done) => setTimeout(done, seconds * 1000));
    }
  }
}

function show(models) {
  const ordered = models.toSorted((one, other) => other.default - one.default);
  byId("model").replaceChildren(...ordered.map((model) => {
    const accuracy = model.accuracy === null ? "" : ` (${(100 * model.accuracy).toFixed(1)} % right)`;
    return element("option", { value: model.default ? "" : model.name }, model.name + accuracy);
  }));
}

function say(text) {
  const notice = byId("notice");
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}

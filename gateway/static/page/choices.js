// The choice of the model and of the kind of picture.

import { listModels } from "./api.js";
import { byId, element, sentence } from "./dom.js";
import { askForKey } from "./key.js";

const AGAIN_S = 2;

/** The query parameters of POST /predict; empty values stand for the defaults. */
export function query() {
  return { model: byId("model").value, mode: byId("mode").value, explain: "input" };
}

let loading = null;

/** Loads the list of models once; after a failure, such as a missing key, the next call tries again. */
export function loadModels() {
  loading ??= load().then((loaded) => {
    if (!loaded) loading = null;
  });
}

/** Retries, and says so on the page, until a worker has announced its models. */
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
      say(`Not ready yet. ${sentence(problem.detail || problem.title)} Retrying every ${seconds} s.`);
      await new Promise((done) => setTimeout(done, seconds * 1000));
    }
  }
}

function show(models) {
  const ordered = models.filter((model) => model.kind !== "tensor").toSorted((one, other) => other.default - one.default);
  byId("model").replaceChildren(...ordered.map((model) => {
    const accuracy = model.accuracy === null ? "" : ` (${(100 * model.accuracy).toFixed(1)} % accurate)`;
    return element("option", { value: model.default ? "" : model.name }, model.name + accuracy);
  }));
}

function say(text) {
  const notice = byId("notice");
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}

// Sends pictures, a few at once, and retries those for which the gateway says when.

import { predict, Problem } from "./api.js";
import { suiting } from "./choices.js";
import { askForKey } from "./key.js";
import { looked, whenReady } from "./models.js";
import { prepare } from "./pictures.js";

const AT_ONCE = 4; // browsers open up to six connections to a host, and leave some for other requests

const queue = [];
const running = new Set();

/**
 * Queues an item, which is a picture and its result. state: waiting, asking, locked (for want of an API key),
 * delayed, answered or failed. Calls changed(item) at each change.
 */
export function ask(item, changed) {
  item.set = (change) => {
    Object.assign(item, change);
    changed(item);
  };
  item.stop = new AbortController();
  item.set({ state: "waiting", problem: null, outcome: null, givenUp: false });
  queue.push(item);
  next();
}

/** Ends an item without an answer, whether it waits to be sent or to be answered. */
export function giveUp(item) {
  const at = queue.indexOf(item);
  if (at >= 0) {
    queue.splice(at, 1);
    item.set({ state: "failed", problem: new Problem({ title: "Cancelled", detail: "The picture was not sent." }) });
  }
  item.givenUp = true;
  item.stop.abort();
}

export function giveUpAll() {
  for (const item of [...queue, ...running]) giveUp(item);
}

function next() {
  while (running.size < AT_ONCE && queue.length) {
    const item = queue.shift();
    running.add(item);
    answer(item).finally(() => {
      running.delete(item);
      next();
    });
  }
}

async function answer(item) {
  try {
    item.set({ state: "asking", sent: await prepare(item.file, item.smaller), askedAt: performance.now() });
    item.set({ state: "answered", outcome: await askUntilAnswered(item) });
  } catch (error) {
    item.set({ state: "failed", problem: asProblem(error) });
  }
}

async function askUntilAnswered(item) {
  const { picture, name } = item.sent;
  await looked;
  for (;;) {
    Object.assign(item.sent, await suiting(picture, item.query)); // each time, as the models may be known by now
    try {
      return await predict(picture, name, item.sent.query, item.stop.signal);
    } catch (problem) {
      if (item.givenUp) throw problem;
      if (problem.status === 401) {
        item.set({ state: "locked", problem });
        if (!(await askForKey(problem)) || item.givenUp) throw problem;
      } else {
        if (!problem.isTemporary) throw problem;
        if (problem.status !== 429) whenReady();
        await delay(item, problem);
      }
      item.set({ state: "asking", askedAt: performance.now() });
    }
  }
}

/** Waits as long as the gateway asks, or until item.tryNow(); giveUp(item) makes it throw the problem. */
async function delay(item, problem) {
  let timer;
  const again = await new Promise((done) => {
    timer = setTimeout(done, problem.retryAfterS * 1000, true);
    item.stop.signal.addEventListener("abort", () => done(false));
    const againAt = performance.now() + problem.retryAfterS * 1000;
    item.set({ state: "delayed", problem, againAt, tryNow: () => done(true) });
  });
  clearTimeout(timer);
  if (!again) throw problem;
}

function asProblem(error) {
  if (error instanceof Problem) return error;
  return new Problem({ title: "This page failed", detail: String(error) });
}

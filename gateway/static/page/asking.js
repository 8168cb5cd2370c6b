// Sends pictures, a few at once, and retries those for which the gateway says when.

import { predict, Problem } from "./api.js";
import { askForKey } from "./key.js";
import { prepare } from "./pictures.js";

const AT_ONCE = 4; // browsers open up to six connections to a host, and leave some for other requests

const queue = [];
const running = new Set();

/**
 * Queues an item, which is a picture and its result. state: waiting, asking, delayed, answered or failed.
 * Calls changed(item) at each change.
 */
export function ask(item, changed) {
  item.set = (change) => {
    Object.assign(item, change);
    changed(item);
  };
  item.set({ state: "waiting", problem: null, outcome: null, givenUp: false });
  queue.push(item);
  next();
}

/** Requests in flight may still be answered; nothing is sent after them. */
export function giveUpAll() {
  for (const item of queue.splice(0)) {
    item.set({ state: "failed", problem: new Problem({ title: "Cancelled", detail: "The picture was not sent." }) });
  }
  for (const item of running) {
    item.givenUp = true;
    item.giveUp?.();
  }
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
    const sent = await prepare(item.file, item.smaller);
    item.set({ state: "asking", sent });
    item.set({ state: "answered", outcome: await askUntilAnswered(item) });
  } catch (error) {
    item.set({ state: "failed", problem: asProblem(error) });
  }
}

async function askUntilAnswered(item) {
  for (;;) {
    try {
      return await predict(item.sent.picture, item.sent.name, item.query);
    } catch (problem) {
      if (problem.status === 401 && (await askForKey(problem))) continue;
      if (!problem.isTemporary || item.givenUp) throw problem;
      await delay(item, problem);
    }
  }
}

/** Waits as long as the gateway asks, or until item.tryNow(); item.giveUp() makes it throw the problem. */
async function delay(item, problem) {
  let timer;
  const again = await new Promise((done) => {
    timer = setTimeout(done, problem.retryAfterS * 1000, true);
    const againAt = performance.now() + problem.retryAfterS * 1000;
    item.set({ state: "delayed", problem, againAt, tryNow: () => done(true), giveUp: () => done(false) });
  });
  clearTimeout(timer);
  if (!again) throw problem;
  item.set({ state: "asking" });
}

function asProblem(error) {
  if (error instanceof Problem) return error;
  return new Problem({ title: "This page failed", detail: String(error) });
}

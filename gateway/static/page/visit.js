// The list of all pictures, newest first, with their progress.

import { ask } from "./asking.js";
import { query } from "./choices.js";
import { announce, byId, element, percent, sentence } from "./dom.js";
import { drawResult } from "./result.js";

const ENDED = ["answered", "failed"];
const NARROW = matchMedia("(max-width: 56rem)"); // as in page.css
const items = [];
let selected = null;

/** Adds pictures, [{file, path}], as a group with the same options. path: that of a sample. */
export function give(pictures) {
  const alike = { query: query(), group: { size: pictures.length }, state: "waiting", outcome: null, problem: null };
  const added = pictures.map(({ file, path, smaller }) => ({ ...alike, file, path, smaller, name: file.name, row: makeRow() }));
  for (const item of added) {
    items.push(item);
    item.row.firstChild.addEventListener("click", () => {
      select(item);
      reveal("answer");
    });
  }
  byId("items").prepend(...added.map((item) => item.row));
  byId("visit").hidden = false;
  const listFirst = added.length > 1 && NARROW.matches;
  if (!listFirst) select(added[0]);
  for (const item of added) ask(item, changed);
  if (listFirst) reveal("visit");
}

/** Shows a button to classify again if the options differ from those of the answer shown. */
export function offerAgain() {
  const button = byId("again");
  if (button) button.hidden = JSON.stringify(query()) === JSON.stringify(selected.query);
}

function changed(item) {
  drawRow(item);
  if (item === selected) show();
  drawProgress();
  if (item.state === "delayed") return announceDelay(item);
  if (!ENDED.includes(item.state)) return;
  announceEnd(item);
  if (item === selected && item.group.size === 1) reveal("answer");
}

function select(item) {
  const before = selected;
  selected = item;
  if (before) drawRow(before);
  drawRow(item);
  show();
}

function show() {
  const item = selected;
  drawResult(item, (change) => again(item, change));
  offerAgain();
}

/** Sends a failed picture again in its place, and an answered one as a new entry. */
function again(item, change) {
  if (item.state === "answered") return give([item]);
  Object.assign(item, change, { group: { size: 1 }, query: query() });
  ask(item, changed);
}

/** Scrolls to a section, which may be out of sight on a narrow screen. */
function reveal(id) {
  const { top } = byId(id).getBoundingClientRect();
  if (!NARROW.matches || (top > -40 && top < innerHeight * 0.7)) return;
  const smooth = matchMedia("(prefers-reduced-motion: no-preference)").matches;
  byId(id).scrollIntoView({ behavior: smooth ? "smooth" : "auto" });
}

function makeRow() {
  return element("li", {}, element("button", { type: "button" }));
}

const STATES = { waiting: "Waiting", asking: "Classifying", delayed: "Delayed" };

function drawRow(item) {
  const button = item.row.firstChild;
  const answer = item.outcome?.answer;
  const text = answer?.label ?? item.problem?.title ?? STATES[item.state];
  const number = answer ? percent(answer.confidence) : "";
  const doubt = answer && (answer.in_distribution === false || answer.warnings.length);
  button.dataset.state = item.state;
  button.setAttribute("aria-current", String(item === selected));
  button.replaceChildren(
    answer?.input ? element("img", { src: answer.input, class: "pixels", alt: "", width: 40, height: 40 }) : element("span", { class: "blank" }),
    element("span", { class: "what" }, element("b", {}, text), element("span", { class: "muted" }, item.name)),
    element("span", { class: "number" }, number, doubt ? element("span", { class: "doubt" }, "uncertain") : null));
}

function drawProgress() {
  const count = (state) => items.filter((item) => item.state === state).length;
  const ended = count("answered") + count("failed");
  const bar = byId("progress");
  bar.max = items.length;
  bar.value = ended;
  bar.hidden = ended === items.length;
  byId("summary").textContent = ended < items.length
    ? `${ended} of ${items.length} done`
    : summary(count("answered"), count("failed"));
  offerGivingUp();
}

/** Offers to cancel if several pictures are open and at least one is being retried. */
function offerGivingUp() {
  const open = items.filter((item) => !ENDED.includes(item.state));
  const offered = open.length > 1 && open.some((item) => item.problem && !item.givenUp);
  const button = byId("give-up");
  if (!offered && button === document.activeElement) byId("visit-title").focus({ preventScroll: true });
  button.hidden = !offered;
}

function summary(answered, failed) {
  const pictures = answered + failed === 1 ? "1 picture" : `${answered + failed} pictures`;
  return failed ? `${pictures}, ${answered} answered, ${failed} failed` : `${pictures}, all answered`.replace("1 picture, all", "1 picture,");
}

function announceDelay(item) {
  if (item.group.told) return;
  item.group.told = true;
  const end = byId("give-up").hidden ? "" : ", or until you press Cancel all";
  announce(`${item.problem.title}. The page retries until there is an answer${end}.`);
}

function announceEnd(item) {
  const of = items.filter((other) => other.group === item.group);
  if (item.group.size === 1) return announce(item.state === "answered" ? spoken(item) : `${item.name}: ${item.problem.title}. ${sentence(item.problem.detail)}`);
  if (!of.every((other) => ENDED.includes(other.state))) return;
  const answered = of.filter((other) => other.state === "answered").length;
  announce(summary(answered, of.length - answered));
}

function spoken({ name, outcome: { answer } }) {
  return [`${name}: ${answer.label}, ${percent(answer.confidence)}`, ...answer.warnings].join(". ");
}

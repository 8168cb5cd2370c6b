// The list of all pictures, newest first, with their progress.

import { ask, giveUp, giveUpAll } from "./asking.js";
import { query } from "./choices.js";
import { announce, byId, element, NARROW, percent, sentence } from "./dom.js";
import { doubt, drawResult } from "./result.js";

const ENDED = ["answered", "failed"];
const UNSURE = 0.5; // below this probability, the label is more likely wrong than right
const items = [];
let selected = null;
let isFiltered = false;

/** Adds pictures, [{file, path}], as a group with the same options. path: that of a sample. */
export function give(pictures) {
  const added = newItems(pictures);
  for (const item of added) {
    item.row = element("li", {}, element("button", { type: "button" }));
    items.push(item);
    item.row.firstChild.addEventListener("click", () => {
      select(item);
      reveal("answer");
    });
  }
  byId("items").prepend(...added.map((item) => item.row));
  byId("visit").hidden = false;
  byId("items").scrollTo({ top: 0, left: 0 });
  select(added[0]);
  for (const item of added) ask(item, changed);
  if (added.length > 1) reveal("visit", true);
}

/** Classifies a sample, and shows the answer unless the user has given a picture by then. */
export function giveExample(picture) {
  const [item] = newItems([picture]);
  ask(Object.assign(item, { isExample: true }), () => {
    if (item.state === "delayed") giveUp(item);
    if (item.state === "answered" && !selected) select(item);
  });
}

function newItems(pictures) {
  const alike = { query: query(), group: { size: pictures.length }, state: "waiting", outcome: null, problem: null };
  return pictures.map(({ file, path, smaller }) => ({ ...alike, file, path, smaller, name: file.name, row: null }));
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
  rove();
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

/** Scrolls to a section, which may be out of sight on a narrow screen or, as that still scrolls, soon be. */
function reveal(id, isMoving = false) {
  const { top } = byId(id).getBoundingClientRect();
  if (!NARROW.matches || (!isMoving && top > -40 && top < innerHeight * 0.7)) return;
  const smooth = matchMedia("(prefers-reduced-motion: no-preference)").matches;
  byId(id).scrollIntoView({ behavior: smooth ? "smooth" : "auto" });
}

// The list.

const STATES = { waiting: "Waiting", asking: "Classifying", locked: "Needs an API key", delayed: "Delayed" };

function isDoubtful({ outcome, state }) {
  const answer = outcome?.answer;
  return state === "failed" || Boolean(answer && (answer.in_distribution === false || answer.warnings.length || answer.confidence < UNSURE));
}

function drawRow(item) {
  if (!item.row) return;
  const button = item.row.firstChild;
  const answer = item.outcome?.answer;
  const text = (answer && (doubt(answer) || answer.label)) ?? (item.state === "locked" ? null : item.problem?.title) ?? STATES[item.state];
  const number = answer && !doubt(answer) ? percent(answer.confidence) : "";
  button.dataset.state = item.state;
  button.setAttribute("aria-current", String(item === selected));
  button.replaceChildren(
    answer?.input ? element("img", { src: answer.input, class: "pixels", alt: "", width: 40, height: 40 }) : element("span", { class: "blank" }),
    element("span", { class: "what" }, element("b", {}, text), element("span", { class: "muted" }, item.name)),
    element("span", { class: "number" }, number, answer && isDoubtful(item) ? element("span", { class: "doubt" }, "uncertain") : null));
  item.row.hidden = isFiltered && !isDoubtful(item);
}

/** One entry of the list takes part in the order of Tab; the arrow keys move between the entries. */
function rove() {
  const rows = visibleRows();
  const home = rows.find((button) => button === selected?.row?.firstChild) ?? rows[0];
  for (const button of rows) button.tabIndex = button === home ? 0 : -1;
}

function visibleRows() {
  return [...byId("items").children].filter((row) => !row.hidden).map((row) => row.firstChild);
}

function moveInList(event) {
  const rows = visibleRows();
  const at = rows.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const next = rows[Math.max(0, Math.min(to, rows.length - 1))];
  select(items.find((item) => item.row.firstChild === next));
  next.focus();
}

function filter() {
  isFiltered = !isFiltered;
  byId("doubtful").setAttribute("aria-pressed", String(isFiltered));
  for (const item of items) drawRow(item);
  rove();
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
  const doubtful = items.filter(isDoubtful).length;
  byId("doubtful").hidden = items.length < 2 || (!doubtful && !isFiltered);
  byId("doubtful").textContent = `Only doubtful (${doubtful})`;
  byId("csv").hidden = items.length < 2 || !ended;
  rove();
  offerGivingUp();
}

/** Offers to cancel while several pictures are open. */
function offerGivingUp() {
  const offered = items.filter((item) => !ENDED.includes(item.state) && !item.givenUp).length > 1;
  const button = byId("give-up");
  if (!offered && button === document.activeElement) byId("visit-title").focus({ preventScroll: true });
  button.hidden = !offered;
}

function summary(answered, failed) {
  const pictures = answered + failed === 1 ? "1 picture" : `${answered + failed} pictures`;
  return failed ? `${pictures}, ${answered} answered, ${failed} failed` : `${pictures}, all answered`.replace("1 picture, all", "1 picture,");
}

// Saving.

const COLUMNS = ["file", "label", "confidence", "in_distribution", "model", "version", "warnings", "error"];

/** All that has ended, as CSV (RFC 4180), in the order of the list. */
function csv() {
  const lines = [...byId("items").children]
    .map((row) => items.find((item) => item.row === row))
    .filter((item) => ENDED.includes(item.state))
    .map(({ name, outcome, problem }) => {
      const answer = outcome?.answer;
      const error = answer ? "" : [problem.title, problem.detail].filter(Boolean).join(": ");
      return [name, answer?.label, answer?.confidence, answer?.in_distribution, answer?.model, answer?.version, answer?.warnings.join("; "), error];
    });
  return [COLUMNS, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Quoted where needed. Spreadsheets would run text that begins as a formula, so that gets an apostrophe. */
function cell(value) {
  const text = typeof value === "string" ? value.replace(/^[=+\-@\t\r]/, "'$&") : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save() {
  const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  element("a", { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after the click
}

/** Makes the buttons and keys of the list work. */
export function installList() {
  byId("give-up").addEventListener("click", giveUpAll);
  byId("doubtful").addEventListener("click", filter);
  byId("csv").addEventListener("click", save);
  byId("items").addEventListener("keydown", moveInList);
}

// For screen readers.

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
  const first = doubt(answer) ? `${name}: ${doubt(answer)}; best guess: ${answer.label}` : `${name}: ${answer.label}`;
  return [`${first}, ${percent(answer.confidence)}`, ...answer.warnings].join(". ");
}

// Draws the answer for a picture, or its problem.

import { giveUp } from "./asking.js";
import { drawCalls } from "./calls.js";
import { byId, bytes, element, percent, sentence, NARROW } from "./dom.js";
import { pictureModels } from "./models.js";
import { drawTimings } from "./timings.js";

const NO_BETTER_AGAIN = [413, 415, 422]; // the picture is at fault
const FEW_ROWS = 3;

const shown = { item: null, urls: new Map() };
let ticking = null;
let isUnfolded = false; // all rows of probabilities, for the next picture too

/** Draws the item. again(change) sends its picture again after changing the item. */
export function drawResult(item, again) {
  const panel = byId("answer");
  const hadFocus = panel.contains(document.activeElement);
  clearInterval(ticking);
  if (shown.item !== item) {
    for (const url of shown.urls.values()) URL.revokeObjectURL(url);
    Object.assign(shown, { item, urls: new Map() });
  }
  panel.dataset.state = item.state;
  panel.setAttribute("aria-busy", String(["waiting", "asking"].includes(item.state)));
  panel.replaceChildren(...DRAWINGS[item.state](item, again).filter(Boolean));
  if (hadFocus) byId("answer-title").focus({ preventScroll: true });
}

/** The headline of an answer about a picture that is unlike those that the model has seen; "" for others. */
export function doubt({ model, in_distribution: known }) {
  if (known !== false) return "";
  const kind = pictureModels().find(({ name }) => name === model)?.kind ?? "garment";
  return kind === "garment" ? "Probably not clothing" : "Unlike the training pictures";
}

/** A URL of the file, valid while its item is shown. */
function urlOf(file) {
  if (!shown.urls.has(file)) shown.urls.set(file, URL.createObjectURL(file));
  return shown.urls.get(file);
}

const DRAWINGS = {
  waiting: (item) => pending(item, "Waiting"),
  asking: drawAsking,
  locked: drawLocked,
  delayed: drawDelayed,
  answered: drawAnswered,
  failed: drawFailed,
};

function title(text, ...more) {
  return element("h2", { id: "answer-title", tabindex: "-1" }, text, ...more);
}

/** An element whose text is renewed while the item is shown as it is. */
function ticker(text, everyMs) {
  const place = element("span");
  const tick = () => (place.textContent = text());
  tick();
  ticking = setInterval(tick, everyMs);
  return place;
}

function cancel(item) {
  return element("button", { type: "button", class: "quiet", click: () => giveUp(item) }, "Cancel");
}

function pending(item, text, ...more) {
  return [title(text), element("p", { class: "muted" }, item.name, ...more),
    element("div", { class: "row" }, cancel(item)),
    element("div", { class: "pictures" }, given(item))];
}

function drawAsking(item) {
  const elapsed = () => `${((performance.now() - item.askedAt) / 1000).toFixed(1)} s`;
  return pending(item, "Classifying", " · ", ticker(elapsed, 100));
}

function drawLocked(item) {
  return [
    title("Waiting for an API key"),
    element("p", { class: "detail" }, item.problem.withKey ? `The last one was refused. ${sentence(item.problem.detail)}` : sentence(item.problem.detail)),
    element("p", { class: "muted" }, `${item.name} will be sent when you enter ${item.problem.withKey ? "another key" : "a key"} above.`),
    element("div", { class: "pictures" }, given(item)),
  ];
}

function drawDelayed(item) {
  const left = () => `${Math.max(0, Math.ceil((item.againAt - performance.now()) / 1000))} s`;
  return [
    title(item.problem.title),
    element("p", { class: "detail" }, sentence(item.problem.detail)),
    element("p", { class: "muted" }, `${item.name} will be sent again in `, ticker(left, 250), "."),
    element("div", { class: "row" },
      element("button", { type: "button", class: "primary", click: item.tryNow }, "Try now"), cancel(item)),
  ];
}

function drawFailed(item, again) {
  const { title: what, detail, status, requestId } = item.problem;
  const shrink = status === 413
    ? element("button", { type: "button", class: "primary", click: () => again({ smaller: true }) }, "Shrink and send")
    : null;
  const mayHelp = !NO_BETTER_AGAIN.includes(status);
  return [
    title(what),
    element("p", { class: "detail" }, detail === what ? "" : sentence(detail)),
    element("p", { class: "muted" }, item.name, requestId ? element("span", { class: "id" }, ` · request ${requestId}`) : ""),
    element("div", { class: "row" }, shrink,
      mayHelp ? element("button", { type: "button", class: "primary", click: () => again({}) }, "Try again") : null),
  ];
}

function drawAnswered(item, again) {
  const { answer } = item.outcome;
  const { why, query, name } = item.sent;
  const unlike = doubt(answer);
  const headline = unlike
    ? [title(unlike), element("p", { class: "guess" }, "Best guess: ", element("b", {}, answer.label), ` ${percent(answer.confidence)}`)]
    : [title(answer.label, " ", element("span", { class: "confidence" }, percent(answer.confidence)))];
  return [
    item.isExample ? element("p", { class: "eyebrow" }, "An example. Yours will appear here.") : null,
    ...headline,
    element("p", { class: "muted about" }, element("b", {}, answer.model), ` ${answer.version}`, why ? `, ${why}` : "",
      why || answer.mode === "image" ? "" : `, prepared as ${answer.mode}`),
    element("button", { id: "again", type: "button", class: "quiet", hidden: true, click: () => again({}) }, "Classify again with these options"),
    drawWarnings(answer),
    element("div", { class: "columns" },
      element("div", { class: "pictures pair" }, given(item), element("span", { class: "arrow", "aria-hidden": "true" }, "→"), seen(answer)),
      drawProbabilities(answer.probabilities)),
    drawTimings(item.outcome),
    drawCalls(item.path ?? name, query, answer, drawSaving(item), !NARROW.matches),
  ];
}

/** Offers the picture that was sent, if the page converted it, because the calls need it as a file. */
function drawSaving({ name, sent }) {
  if (!sent.note) return null;
  return element("p", { class: "muted" }, `${name} was ${sent.note}. `,
    element("a", { href: urlOf(sent.picture), download: sent.name }, `Save ${sent.name}`), ", which was sent.");
}

function drawWarnings({ in_distribution: known, ood_score: score, warnings }) {
  if (known !== false && !warnings.length) return null;
  return element("div", { class: "notice warning" },
    element("strong", {}, known === false ? "Do not trust the guess" : "The answer may be wrong"),
    element("ul", {}, warnings.map((text) => element("li", {}, sentence(text)))),
    known === false && score !== null ? element("p", {}, `Out-of-distribution score: ${score.toFixed(2)}. 95 % of pictures like those of the training score 1 or less.`) : null);
}

function given(item) {
  const image = element("img", { src: urlOf(item.file), alt: `Your picture: ${item.name}`, decoding: "async" });
  const size = element("span", { class: "muted" }, bytes(item.file.size));
  image.addEventListener("load", () => {
    size.prepend(`${image.naturalWidth} × ${image.naturalHeight}, `);
    enlarge(image);
  });
  image.addEventListener("error", () => image.replaceWith(element("div", { class: "blank" })));
  const note = item.sent?.note ? element("span", { class: "muted" }, item.sent.note) : null;
  return element("figure", {}, image, element("figcaption", {}, item.isExample ? "The picture" : "Your picture", size, note));
}

function seen(answer) {
  if (!answer.input) return null;
  const image = element("img", { src: answer.input, alt: "What the model saw" });
  const size = element("span", { class: "muted" });
  image.addEventListener("load", () => {
    size.textContent = `${image.naturalWidth} × ${image.naturalHeight}`;
    enlarge(image);
  });
  return element("figure", {}, image, element("figcaption", {}, "What the model saw", size));
}

/** Shows the single pixels of a small picture. */
function enlarge(image) {
  if (image.naturalWidth < 128) image.classList.add("pixels");
}

function drawProbabilities(probabilities) {
  const rows = Object.entries(probabilities).sort(([, one], [, other]) => other - one).map(drawRow);
  const isLong = rows.length > FEW_ROWS + 1;
  const button = isLong ? element("button", { type: "button", class: "quiet" }) : null;
  const fold = () => {
    rows.forEach((row, at) => (row.hidden = isLong && !isUnfolded && at >= FEW_ROWS));
    button?.setAttribute("aria-expanded", String(isUnfolded));
    button?.replaceChildren(isUnfolded ? "Show fewer" : `Show all ${rows.length}`);
  };
  button?.addEventListener("click", () => {
    isUnfolded = !isUnfolded;
    fold();
  });
  fold();
  return element("div", { class: "probabilities" },
    element("table", { class: "bars" },
      element("caption", { class: "unseen" }, "Probability of each kind"),
      element("thead", { class: "unseen" }, element("tr", {},
        element("th", { scope: "col" }, "Kind"), element("th", { scope: "col" }, "Probability"))),
      element("tbody", {}, rows)),
    button);
}

function drawRow([label, probability]) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("i"));
  bar.firstChild.style.width = `${100 * probability}%`;
  return element("tr", {}, element("th", { scope: "row" }, label),
    element("td", {}, bar, element("span", {}, percent(probability))));
}

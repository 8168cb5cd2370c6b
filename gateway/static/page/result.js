// Draws the answer for a picture, or its problem.

import { drawCalls } from "./calls.js";
import { byId, bytes, element, percent, sentence } from "./dom.js";
import { drawTimings } from "./timings.js";

const NO_BETTER_AGAIN = [413, 415, 422]; // the picture is at fault

const shown = { item: null, urls: new Map() };
let ticking = null;

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

/** A URL of the file, valid while its item is shown. */
function urlOf(file) {
  if (!shown.urls.has(file)) shown.urls.set(file, URL.createObjectURL(file));
  return shown.urls.get(file);
}

const DRAWINGS = {
  waiting: (item) => pending(item, "Waiting"),
  asking: (item) => pending(item, "Classifying"),
  delayed: drawDelayed,
  answered: drawAnswered,
  failed: drawFailed,
};

function title(text, ...more) {
  return element("h2", { id: "answer-title", tabindex: "-1" }, text, ...more);
}

function pending(item, text) {
  return [title(text), element("p", { class: "muted" }, item.name), element("div", { class: "pictures" }, given(item))];
}

function drawDelayed(item) {
  const left = element("span");
  const tick = () => (left.textContent = `${Math.max(0, Math.ceil((item.againAt - performance.now()) / 1000))} s`);
  tick();
  ticking = setInterval(tick, 250);
  return [
    title(item.problem.title),
    element("p", { class: "detail" }, sentence(item.problem.detail)),
    element("p", { class: "muted" }, `${item.name} will be sent again in `, left, "."),
    element("div", { class: "row" },
      element("button", { type: "button", class: "primary", click: item.tryNow }, "Try now"),
      element("button", { type: "button", class: "quiet", click: item.giveUp }, "Cancel")),
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
  return [
    title(answer.label, " ", element("span", { class: "confidence" }, percent(answer.confidence))),
    element("p", { class: "muted" }, `${answer.model} ${answer.version}, prepared as ${answer.mode}`),
    element("button", { id: "again", type: "button", class: "quiet", hidden: true, click: () => again({}) }, "Classify again with these options"),
    drawWarnings(answer),
    element("div", { class: "columns" },
      element("div", { class: "pictures" }, given(item), seen(answer)),
      drawProbabilities(answer.probabilities)),
    drawTimings(item.outcome),
    drawCalls(item.path ?? item.sent.name, item.query, drawSaving(item)),
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
    element("strong", {}, known === false ? "This may not be clothing" : "The answer may be wrong"),
    element("ul", {}, warnings.map((text) => element("li", {}, sentence(text)))),
    score === null ? null : element("p", {}, `Out-of-distribution score: ${score.toFixed(2)}. 95 % of pictures of clothing score 1 or less.`));
}

function given(item) {
  const image = element("img", { src: urlOf(item.file), alt: `Your picture: ${item.name}`, decoding: "async" });
  const size = element("span", { class: "muted" }, bytes(item.file.size));
  image.addEventListener("load", () => {
    size.prepend(`${image.naturalWidth} × ${image.naturalHeight}, `);
    if (image.naturalWidth < 128) image.classList.add("pixels");
  });
  image.addEventListener("error", () => image.replaceWith(element("div", { class: "blank" })));
  const note = item.sent?.note ? element("span", { class: "muted" }, item.sent.note) : null;
  return element("figure", {}, image, element("figcaption", {}, "Your picture", size, note));
}

function seen(answer) {
  if (!answer.input) return null;
  return element("figure", {},
    element("img", { src: answer.input, class: "pixels", alt: "The 28 by 28 grey pixels that the network saw" }),
    element("figcaption", {}, "What the network saw", element("span", { class: "muted" }, "28 × 28")));
}

function drawProbabilities(probabilities) {
  const rows = Object.entries(probabilities).sort(([, one], [, other]) => other - one);
  return element("table", { class: "bars" },
    element("caption", { class: "unseen" }, "Probability of each kind"),
    element("thead", { class: "unseen" }, element("tr", {},
      element("th", { scope: "col" }, "Kind"), element("th", { scope: "col" }, "Probability"))),
    element("tbody", {}, rows.map(([label, probability]) => {
      const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("i"));
      bar.firstChild.style.width = `${100 * probability}%`;
      return element("tr", {}, element("th", { scope: "row" }, label),
        element("td", {}, bar, element("span", {}, percent(probability))));
    })));
}

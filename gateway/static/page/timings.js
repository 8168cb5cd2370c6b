// How long each step took.

import { element, milliseconds } from "./dom.js";

const PARTS = [
  ["network", "Browser and network"],
  ["broker", "Broker, both ways"],
  ["queue", "Queue"],
  ["batch", "Batch"],
  ["decode", "Decode"],
  ["infer", "Infer"],
];

/** Parses a Server-Timing header into {name: milliseconds}. */
export function parseServerTiming(header) {
  const parts = header.split(",").map((part) => /^\s*([\w-]+).*;\s*dur=([\d.]+)/.exec(part));
  return Object.fromEntries(parts.filter(Boolean).map(([, name, duration]) => [name, Number(duration)]));
}

/** The parts of the round trip, from the header or else the answer; the rest is browser and network. */
export function partsOf({ answer, serverTiming, roundTripMs }) {
  const own = Object.entries(answer.timings).map(([name, value]) => [name.replace(/_ms$/, ""), value]);
  const measured = { ...Object.fromEntries(own), ...parseServerTiming(serverTiming) };
  measured.network = Math.max(0, roundTripMs - measured.total);
  return PARTS.filter(([name]) => name in measured).map(([name, title]) => ({ name, title, ms: measured[name] }));
}

export function drawTimings(outcome) {
  const parts = partsOf(outcome);
  const { total_ms: total, batch_size: size } = outcome.answer.timings;
  const shared = size > 1 ? `, in a batch of ${size}` : "";
  const bar = element("div", { class: "stack", "aria-hidden": "true" });
  for (const { name, ms } of parts) {
    const piece = element("span", { "data-part": name });
    piece.style.flexGrow = ms;
    bar.append(piece);
  }
  const legend = parts.map(({ name, title, ms }) =>
    element("li", {}, element("span", { class: "swatch", "data-part": name }), `${title} `,
      element("b", {}, milliseconds(ms))));
  return element("section", { class: "timings" },
    element("h3", {}, "Where the time went"),
    element("p", {}, `${milliseconds(outcome.roundTripMs)} in total, ${milliseconds(total)} of it in the service${shared}.`),
    bar, element("ul", {}, legend));
}

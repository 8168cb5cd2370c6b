// Creates elements. Text is always inserted as text, never as HTML.

/** Whether the sections are below each other, as in page.css. */
export const NARROW = matchMedia("(max-width: 56rem)");

export const byId = (id) => document.getElementById(id);

/** Creates an element. Attributes that are functions become listeners; null and false are omitted. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

/** Has screen readers read the text when they are idle. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Shows the text until it is dismissed, and has screen readers read it. */
export function remark(text) {
  byId("remark").textContent = text;
  byId("remark").hidden = false;
  byId("remark").scrollIntoView({ block: "nearest" });
  announce(text);
}

export function dismissRemark() {
  byId("remark").hidden = true;
}

/** Formats a probability, without rounding to 0 % or 100 %. */
export function percent(probability) {
  if (probability > 0 && probability < 0.001) return "< 0.1\u00a0%";
  const digits = probability >= 0.99 ? 2 : 1;
  const shown = probability < 1 ? Math.min(100 * probability, 99.99) : 100;
  return `${shown.toFixed(digits)}\u00a0%`;
}

/** Capitalizes the text and ends it with a full stop. */
export function sentence(text) {
  const begun = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[\w)"'%]$/.test(begun) ? `${begun}.` : begun;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${(count / 1000).toFixed(1)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}

// Making elements. Text is always text, never HTML.

export const byId = (id) => document.getElementById(id);

/** An element; attributes that are functions are listeners, those that are null or false are left out. */
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

/** Read out by screen readers when they have nothing else to say. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Seen and read out, until dismissed. */
export function remark(text) {
  byId("remark").textContent = text;
  byId("remark").hidden = false;
  byId("remark").scrollIntoView({ block: "nearest" });
  announce(text);
}

export function dismissRemark() {
  byId("remark").hidden = true;
}

/** Never 100 % of what is less than sure, nor 0 % of what is more than impossible. */
export function percent(probability) {
  if (probability > 0 && probability < 0.001) return "< 0.1\u00a0%";
  const digits = probability >= 0.99 ? 2 : 1;
  const shown = probability < 1 ? Math.min(100 * probability, 99.99) : 100;
  return `${shown.toFixed(digits)}\u00a0%`;
}

/** The service's words, begun and ended as a sentence is. */
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

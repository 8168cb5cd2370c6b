// The same call as a curl command, as Python and as JavaScript code, and what it answered.

import { address, key } from "./api.js";
import { announce, element } from "./dom.js";

/** Quotes text for a POSIX shell. */
export function shellQuoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The value of curl's -F for a file, quoted if the name contains separators of that option. */
function formFile(path) {
  return /[";,\\]/.test(path) ? `file=@"${path.replace(/["\\]/g, "\\$&")}"` : `file=@${path}`;
}

export function curlLine(path, query, withKey) {
  const header = withKey ? ` -H "X-API-Key: $MLAAS_API_KEY"` : "";
  return `curl${header} -F ${shellQuoted(formFile(path))} ${shellQuoted(address("predict", query))}`;
}

/** The client takes the key from MLAAS_API_KEY by itself. */
export function pythonLines(path, query) {
  const options = Object.entries(query).filter(([, value]) => value)
    .map(([name, value]) => `, ${name}=${JSON.stringify(value)}`);
  return [
    "from mlaas import Client",
    "",
    `with Client(${JSON.stringify(address("."))}) as client:`,
    `    answer = client.predict(${JSON.stringify(path)}${options.join("")})`,
    "print(answer.label, answer.confidence)",
  ].join("\n");
}

export function javascriptLines(path, query, withKey) {
  const header = withKey ? `, headers: { "X-API-Key": process.env.MLAAS_API_KEY }` : "";
  return [
    `import { openAsBlob } from "node:fs";`,
    "",
    "const body = new FormData();",
    `body.append("file", await openAsBlob(${JSON.stringify(path)}));`,
    `const response = await fetch(${JSON.stringify(address("predict", query))}, { method: "POST", body${header} });`,
    "const answer = await response.json();",
    "console.log(answer.label, answer.confidence);",
  ].join("\n");
}

/** The answer as JSON, with the picture in it cut short. */
function jsonLines(answer) {
  return JSON.stringify(answer, (name, value) => (name === "input" ? `${value.slice(0, 40)}…` : value), 2);
}

let chosen = "curl"; // the tab that was open last, for the next picture too

/** The calls in tabs, in a section that can be folded. note: an element to show above them, or null. */
export function drawCalls(path, query, answer, note, isOpen) {
  const withKey = Boolean(key.get());
  const texts = {
    curl: ["curl", curlLine(path, query, withKey)],
    python: ["Python", pythonLines(path, query)],
    javascript: ["JavaScript", javascriptLines(path, query, withKey)],
    json: ["JSON", jsonLines(answer)],
  };
  const panels = Object.entries(texts).map(([id, [title, text]]) => panel(id, title, text));
  const tabs = Object.entries(texts).map(([id, [title]]) => tab(id, title));
  const choose = (id) => {
    chosen = id;
    for (const each of tabs) {
      const isChosen = each.id === `tab-${id}`;
      each.setAttribute("aria-selected", String(isChosen));
      each.tabIndex = isChosen ? 0 : -1;
    }
    for (const each of panels) each.hidden = each.id !== `panel-${id}`;
  };
  tabs.forEach((each, at) => {
    each.addEventListener("click", () => choose(each.id.slice(4)));
    each.addEventListener("keydown", ({ key: pressed }) => {
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[pressed];
      if (to === undefined) return;
      const next = tabs.at(to % tabs.length);
      choose(next.id.slice(4));
      next.focus();
    });
  });
  choose(chosen);
  return element("details", { class: "calls", open: isOpen },
    element("summary", {}, element("h3", {}, "The same call")),
    note,
    element("div", { class: "tabs", role: "tablist", "aria-label": "The same call" }, tabs),
    panels);
}

function tab(id, title) {
  return element("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}` }, title);
}

function panel(id, title, text) {
  const code = element("code", { "data-call": id }, text);
  const button = element("button", { type: "button", class: "quiet", "aria-label": `Copy ${title}` }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await copy(code);
    button.textContent = copied ? "Copied" : "Selected";
    announce(copied ? `${title} copied` : `${title} is selected; copy it now`);
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return element("div", { class: "call", role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}` },
    element("pre", { tabindex: "0" }, code), button);
}

/** Copies the text or, as the clipboard is available only over HTTPS and on localhost, selects it. */
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return false;
  }
}

// The same call as a curl command and as Python code.

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

export function pythonLines(path, query, withKey) {
  const asked = Object.entries(query).filter(([, value]) => value);
  const params = asked.map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return [
    ...(withKey ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${JSON.stringify(path)}, "rb") as picture:`,
    "    answer = httpx.post(",
    `        ${JSON.stringify(address("predict"))},`,
    `        params={${params.join(", ")}},`,
    ...(withKey ? [`        headers={"X-API-Key": os.environ["MLAAS_API_KEY"]},`] : []),
    `        files={"file": picture},`,
    "    ).json()",
    `print(answer["label"], answer["confidence"])`,
  ].join("\n");
}

export function drawCalls(path, query, note) {
  const withKey = Boolean(key.get());
  return element("section", { class: "calls" },
    element("h3", {}, "The same call"),
    note,
    block("curl", curlLine(path, query, withKey)),
    block("Python", pythonLines(path, query, withKey)));
}

function block(title, text) {
  const code = element("code", { "data-call": title.toLowerCase() }, text);
  const button = element("button", { type: "button", class: "quiet", "aria-label": `Copy ${title}` }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await copy(code);
    button.textContent = copied ? "Copied" : "Selected";
    announce(copied ? `${title} copied` : `${title} is selected; copy it now`);
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return element("div", { class: "call" }, element("div", { class: "head" }, element("h4", {}, title), button),
    element("pre", {}, code));
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

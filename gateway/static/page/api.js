// The HTTP API of the gateway. All failures are thrown as Problem.

const KEY = "api-key";

let current = "";
try {
  current = sessionStorage.getItem(KEY) ?? "";
} catch {
  // The browser blocks storage: the key is kept until the page is closed.
}

export const key = {
  get: () => current,
  set: (value) => {
    current = value;
    try {
      sessionStorage.setItem(KEY, value);
    } catch {
      // As above.
    }
  },
  forget: () => {
    current = "";
    try {
      sessionStorage.removeItem(KEY);
    } catch {
      // As above.
    }
  },
};

/** A problem document (RFC 9457), or another failure in the same form. Status 0: no response. */
export class Problem extends Error {
  constructor({ title, detail = "", status = 0, request_id = "" }, retryAfterS = null) {
    super(title);
    Object.assign(this, { title, detail, status, requestId: request_id, retryAfterS });
  }

  get isTemporary() {
    return [0, 429, 503].includes(this.status) && this.retryAfterS !== null;
  }
}

/** The URL of a call, with the query parameters that are not empty. */
export function address(path, query = {}) {
  const url = new URL(path, document.baseURI);
  url.hash = url.search = "";
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
  return url.href;
}

/** {answer, serverTiming, roundTripMs}. Throws Problem. signal: ends the call early. */
export async function predict(picture, name, query, signal) {
  const form = new FormData();
  form.append("file", picture, name);
  const started = performance.now();
  const response = await call(address("predict", query), { method: "POST", body: form, signal });
  const answer = await response.json();
  const roundTripMs = performance.now() - started;
  return { answer, serverTiming: response.headers.get("Server-Timing") ?? "", roundTripMs };
}

/** {reason, againS}: why a picture sent now would not be answered, or null if it would; and when to ask again. */
export async function isReady() {
  let response;
  try {
    response = await fetch(address("health/ready"));
  } catch {
    return { reason: "the service cannot be reached", againS: null };
  }
  if (response.ok) return { reason: null, againS: null };
  const { reason } = await response.json().catch(() => ({}));
  return { reason: reason || `the service answered with status ${response.status}`, againS: retryAfterS(response) };
}

export async function listModels() {
  return (await (await call(address("models"))).json()).models;
}

async function call(url, options = {}) {
  const withKey = key.get();
  const headers = withKey ? { "X-API-Key": withKey } : {};
  let response;
  try {
    response = await fetch(url, { ...options, headers });
  } catch {
    if (options.signal?.aborted) throw new Problem({ title: "Cancelled", detail: "You cancelled it before the answer came." });
    throw new Problem({ title: "The service cannot be reached", detail: "Check that it is running and that you are online." }, 2);
  }
  if (!response.ok) throw Object.assign(await problemOf(response), { withKey });
  return response;
}

async function problemOf(response) {
  const unknown = { title: `The service answered with status ${response.status}` };
  const document = await response.json().catch(() => ({}));
  const title = document.title || unknown.title;
  return new Problem({ ...document, title, status: response.status }, retryAfterS(response));
}

/** The seconds to wait, from seconds or a date (RFC 9110); null if the header is missing or invalid. */
function retryAfterS(response) {
  const given = response.headers.get("Retry-After");
  if (given === null) return null;
  const seconds = /^\d+$/.test(given) ? Number(given) : (Date.parse(given) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), 3600) : null;
}

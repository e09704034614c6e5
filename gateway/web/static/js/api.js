// The HTTP API as this site uses it: same origin, cookie, JSON, and one kind of error.

/** What a person can fill in wrongly, and how it should be. @type {Record<string, string>} by the field's name */
const ADVICE = {
  recovery_code: "That is not a whole recovery code. It looks like LLAMA-7Q2M-X41D-9KTE-03WZ.",
  email: "That is not an e-mail address. It looks like you@example.com.",
  prompt: "The prompt is too long, or empty. Change it and try again.",
  seed: "The seed is a whole number of up to 15 digits. Leave it empty for a random one.",
  destination: "That is neither an invoice nor an address. Paste all of it, without spaces.",
  credits: "Choose a whole number of images, at least one.",
};

/**
 * A sentence for the person at the page. What the API says of a field's type and bounds is for programs.
 * @param {number} status
 * @param {Record<string, any>} body
 */
function sentence(status, body) {
  if (body.code === "invalid_request") {
    const fields = (body.errors ?? []).flatMap((/** @type {{location: string[]}} */ error) => error.location);
    const field = fields.find((/** @type {string} */ name) => Object.hasOwn(ADVICE, name));
    return field ? ADVICE[field] : "Something here is not filled in as it should be. Check it and try again.";
  }
  return body.detail || body.title || `The server answered ${status}.`;
}

/** An answer that is not a success; `status` 0 means that no answer came. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} body the problem document (RFC 9457), extra members included
   */
  constructor(status, body) {
    super(sentence(status, body));
    this.status = status;
    this.code = String(body.code || "");
    this.body = body;
  }
}

/**
 * Ask the API. Throws `Problem`; an aborted request throws the usual `AbortError`.
 * @template {string} M
 * @template {string} P
 * @param {M} method
 * @param {P} path
 * @param {{body?: unknown, key?: string, token?: string, signal?: AbortSignal, keepalive?: boolean}} [options] with a `token`, as
 *   whoever it stands for, and not as this browser
 * @returns {Promise<import("../../api.d.ts").Answer<M, P>>}
 */
export async function api(method, path, { body, key, token, signal, keepalive } = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
      signal: signal ?? null,
      keepalive: keepalive ?? false,
      credentials: token ? "omit" : "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, { code: "network", detail: "No answer from LlamaSketch. Check the connection." });
  }
  const type = response.headers.get("Content-Type") || "";
  const data = type.includes("json") ? await response.json().catch(() => ({})) : {};
  if (response.ok) return data;
  const retry = Number(response.headers.get("Retry-After"));
  throw new Problem(response.status, retry > 0 ? { retry_after_seconds: retry, ...data } : data);
}

/** A fresh key under which the server runs a request at most once. */
export function newKey() {
  return crypto.randomUUID();
}

// The HTTP API as this site uses it: same origin, cookie, JSON, and one kind of error.

/** An answer that is not a success; `status` 0 means that no answer came. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} body the problem document (RFC 9457), extra members included
   */
  constructor(status, body) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.code = String(body.code || "");
    this.body = body;
  }
}

/**
 * Ask the API. Throws `Problem`; an aborted request throws the usual `AbortError`.
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, key?: string, signal?: AbortSignal, keepalive?: boolean}} [options]
 * @returns {Promise<any>}
 */
export async function api(method, path, { body, key, signal, keepalive } = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
      signal: signal ?? null,
      keepalive: keepalive ?? false,
      credentials: "same-origin",
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

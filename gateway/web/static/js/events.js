// One event stream per browser, however many tabs: the tab that holds the lock reads, all others listen.
// (Six streams over HTTP/1.1 would hang the seventh tab.)
import { signal } from "@preact/signals";

/** "connecting", "live" or "reconnecting"; anything but "live" means: poll. */
export const stream = signal("connecting");

/** @type {Map<string, Set<(data: any) => void>>} */
const listeners = new Map();
const NAMES = ["account", "generation", "topup", "progress"];
const channel = new BroadcastChannel("llamasketch-events");
let leading = false;
let started = false;
let halt = () => {};
let renew = () => {};
/** Set while somebody signs in or out: what comes then may be of either. @type {ReturnType<typeof setTimeout> | undefined} */
let paused;
const PAUSE_MS_MAX = 20_000;

/**
 * Listen to one kind of event; "open" comes whenever the stream (again) begins, the moment to read anew, and "closed" when
 * it is refused: perhaps whoever was here was signed out elsewhere.
 * @template {keyof import("../../api.d.ts").Frames | "open" | "closed"} N
 * @param {N} name
 * @param {(data: N extends keyof import("../../api.d.ts").Frames ? import("../../api.d.ts").Frames[N] : undefined) => void} listener
 * @returns {() => void} stop listening
 */
export function on(name, listener) {
  const all = listeners.get(name) ?? new Set();
  listeners.set(name, all.add(listener));
  return () => all.delete(listener);
}

/** @param {{kind: string, name?: string, data?: any}} message */
function receive(message) {
  if (message.kind === "status") stream.value = message.data;
  if (message.kind === "frame" && !paused) for (const listener of listeners.get(message.name ?? "") ?? []) listener(message.data);
}

/** @param {{kind: string, name?: string, data?: any}} message */
function tell(message) {
  receive(message);
  channel.postMessage(message);
}

/** Read the stream for all tabs, for as long as this tab lives. */
function lead() {
  leading = true;
  let failures = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let again;
  /** @type {EventSource} */
  let source;
  const open = () => {
    source = new EventSource("/v1/events");
    source.onopen = () => {
      failures = 0;
      tell({ kind: "status", data: "live" });
      tell({ kind: "frame", name: "open" });
    };
    source.onerror = () => {
      tell({ kind: "status", data: "reconnecting" });
      if (source.readyState !== EventSource.CLOSED) return;
      tell({ kind: "frame", name: "closed" });
      failures += 1;
      again = setTimeout(open, Math.min(15_000, 1_000 * 2 ** failures) * (0.75 + Math.random() / 2));
    };
    for (const name of NAMES) {
      source.addEventListener(name, (event) => {
        let data;
        try {
          data = JSON.parse(event.data);
        } catch {
          return;
        }
        tell({ kind: "frame", name, data });
      });
    }
  };
  halt = () => {
    clearTimeout(again);
    source.close();
  };
  renew = () => {
    halt();
    open();
  };
  open();
  return new Promise((release) => {
    addEventListener("pagehide", () => {
      halt();
      leading = false;
      halt = renew = () => {};
      release(null);
    }, { once: true });
  });
}

/** Begin, once the visitor is known to the server. */
export function startEvents() {
  if (started) return;
  started = true;
  channel.onmessage = ({ data }) => {
    if (data.kind === "hello" && leading) channel.postMessage({ kind: "status", data: stream.value });
    else if (data.kind === "pause") pause();
    else if (data.kind === "renew") resume();
    else receive(data);
  };
  follow();
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    // Back to a page that was kept as it was left: nobody reads for it, and somebody else may be here now.
    follow();
    receive({ kind: "frame", name: "open" });
  });
}

/** Listen to the tab that reads, or read for all. */
function follow() {
  stream.value = "connecting";
  channel.postMessage({ kind: "hello" });
  if (navigator.locks) navigator.locks.request("llamasketch-events", lead);
  else lead();
  setTimeout(() => {
    if (stream.value === "connecting") stream.value = "reconnecting";
  }, 1500);
}

function pause() {
  clearTimeout(paused);
  paused = setTimeout(resume, PAUSE_MS_MAX); // the tab that asked for it may have been closed
  halt();
}

function resume() {
  clearTimeout(paused);
  paused = undefined;
  renew();
}

/** Whoever uses this browser is about to become somebody else: tell no tab anything until `restartEvents`. */
export function pauseEvents() {
  pause();
  channel.postMessage({ kind: "pause" });
}

/** What is read for all tabs is of whoever is here now. */
export function restartEvents() {
  resume();
  channel.postMessage({ kind: "renew" });
}

/**
 * Call `read` on a beat: quick without a stream, slow as a safety net beside it. Returns how to stop.
 * @param {() => void} read
 */
export function poll(read, { quick = 2_000, slow = 10_000 } = {}) {
  let last = performance.now();
  const timer = setInterval(() => {
    const due = stream.value === "live" ? slow : quick;
    if (performance.now() - last < due - 50) return;
    last = performance.now();
    read();
  }, quick);
  return () => clearInterval(timer);
}

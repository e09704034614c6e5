// Live painting: one request in flight, always the newest drawing next, never beyond the agreed spend.
import { effect, signal } from "@preact/signals";
import { OVER } from "./alone_state.js";
import { api, newKey, Problem } from "./api.js";
import { on, poll, stream } from "./events.js";
import { askForCredits, job } from "./jobs.js";
import { base64 } from "./pad.js";
import { loadAccount, online } from "./store.js";

const IDLE_MS = 20_000;
const SETTLE_MS = 350;
/** Of a frame, in pixels. */
const FRAME_SIDE = 512;

/** "off", "painting", "ready", "idle", "hidden", "cap", "offline" or "refused". */
export const live = signal("off");
export const spent = signal(0);
export const cap = signal(50);

let sessionId = "";
let seq = 0;
let sent = -1;
let drawnAt = 0;
/** @type {string | null} */
let flying = null;
let sending = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {{pad: import("./pad.js").Pad, request: () => any} | null} */
let source = null;

/**
 * Begin to paint along.
 * @param {import("./pad.js").Pad} pad
 * @param {() => {prompt: string, seed?: number, strength?: number}} request
 */
export function begin(pad, request) {
  source = { pad, request };
  sessionId = newKey();
  [seq, sent, spent.value, flying, sending] = [0, -1, 0, null, false];
  drawnAt = Date.now();
  live.value = "ready";
  consider();
}

export function stop() {
  live.value = "off";
  clearTimeout(timer);
  source = null;
}

const dead = () => live.value === "off" || !source;

/** Send a frame if there is something new and nothing stands against it. */
function consider() {
  clearTimeout(timer);
  if (dead() || !source || sending) return;
  if (document.hidden) live.value = "hidden";
  else if (!online.value) live.value = "offline";
  else if (spent.value >= cap.value) live.value = "cap";
  else if (flying) live.value = "painting";
  else if (source.pad.empty.value || source.pad.faded.value || sent === source.pad.revision.value) {
    live.value = Date.now() - drawnAt >= IDLE_MS ? "idle" : "ready";
    timer = setTimeout(consider, 1_000);
  } else if (Date.now() - drawnAt < SETTLE_MS) timer = setTimeout(consider, SETTLE_MS);
  else send();
}

async function send() {
  if (!source) return;
  const { pad, request } = source;
  if (pad.look(FRAME_SIDE)) {
    timer = setTimeout(consider, 1_000);
    return;
  }
  sending = true;
  live.value = "painting";
  const revision = pad.revision.value;
  try {
    const sketch = await pad.export(FRAME_SIDE);
    const chosen = request();
    const body = { ...chosen, sketch: { content_type: "image/png", data: await base64(sketch) }, live: true, session_id: sessionId, seq: ++seq };
    const answer = await api("POST", "/v1/generations", { body, key: newKey() });
    sent = revision;
    flying = answer.id;
    job.value = { phase: "live", id: answer.id, state: answer.state, image: job.value?.image, prompt: chosen.prompt, seed: chosen.seed };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 402) {
      stop();
      askForCredits();
    } else if (error.status === 429 || error.status === 0) setTimeout(consider, 1_000 * (error.body.retry_after_seconds ?? 2));
    else live.value = "refused";
    return;
  } finally {
    sending = false;
  }
  consider();
}

/** @param {import("../../api.d.ts").GenerationStateOut} data */
function landed(data) {
  if (data.id !== flying || !OVER.has(data.state)) return;
  flying = null;
  if (data.state === "completed") {
    spent.value += data.credits?.captured ?? 1;
    job.value = { ...job.value, phase: "done", state: "completed", id: data.id, image: data.image_url ?? `/v1/generations/${data.id}/image` };
  }
  loadAccount().catch(() => {});
  consider();
}

const look = () => flying && api("GET", `/v1/generations/${flying}`).then(landed, () => {});
on("generation", landed);
on("open", look);
poll(look, { quick: 1_000, slow: 4_000 });
document.addEventListener("visibilitychange", consider);
effect(() => {
  online.value;
  stream.value;
  cap.value;
  queueMicrotask(consider);
});

/** The drawing changed. */
export function drawn() {
  drawnAt = Date.now();
  if (!dead()) consider();
}

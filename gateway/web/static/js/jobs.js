// Asking for pictures: one request, however often the network makes us repeat it.
import { signal } from "@preact/signals";
import { api, newKey, Problem } from "./api.js";
import { on, poll } from "./events.js";
import { base64 } from "./pad.js";
import { loadAccount, online, start, topupRequest } from "./store.js";

export const OVER = new Set(["completed", "failed", "cancelled", "superseded", "expired", "blocked"]);

/**
 * What the result page shows: {phase, id, state, position, eta, progress, preview, problem, sketch, prompt, since}.
 * @type {import("@preact/signals").Signal<any>}
 */
export const job = signal(null);
/** Pictures of this session, newest first. @type {import("@preact/signals").Signal<any[]>} */
export const gallery = signal(loadGallery());

function loadGallery() {
  try {
    return JSON.parse(sessionStorage.getItem("gallery") ?? "[]");
  } catch {
    return [];
  }
}

/** @param {any} picture */
function keep(picture) {
  if (gallery.value.some((one) => one.id === picture.id)) return;
  gallery.value = [picture, ...gallery.value].slice(0, 24);
  try {
    sessionStorage.setItem("gallery", JSON.stringify(gallery.value));
  } catch {
    // The strip then ends with this page.
  }
}

/** A request that waits for credits, with the key under which it will run once. */
let unpaid = /** @type {null | {key: string, body: any, sketch: Blob}} */ (null);

/** @param {any} change */
function update(change) {
  if (job.value) job.value = { ...job.value, ...change };
}

/**
 * Paint one picture.
 * @param {{prompt: string, sketch: Blob, seed?: number, strength?: number}} request
 */
export async function paint({ prompt, sketch, seed, strength }) {
  const body = {
    prompt,
    sketch: { content_type: "image/png", data: await base64(sketch) },
    ...(seed === undefined ? {} : { seed }),
    ...(strength === undefined ? {} : { strength }),
  };
  await send({ key: newKey(), body, sketch });
}

/** @param {{key: string, body: any, sketch: Blob}} request */
async function send(request) {
  const { body, key, sketch } = request;
  const old = job.value;
  if (old?.sketchUrl) URL.revokeObjectURL(old.sketchUrl);
  job.value = { phase: "sending", sketchUrl: URL.createObjectURL(sketch), prompt: body.prompt, since: Date.now(), request };
  try {
    const answer = await api("POST", "/v1/generations", { body, key });
    unpaid = null;
    // What has ended already (a prompt that the content check stops, a request sent again) is read for its reason.
    const ended = OVER.has(answer.state);
    update({ phase: "waiting", ...known(answer), state: ended ? undefined : answer.state, unheld: answer.state === "blocked" });
    await read();
    loadAccount().catch(() => {});
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 402) {
      unpaid = request;
      update({ phase: "unpaid", problem: error });
      askForCredits();
    } else update({ phase: "refused", problem: error });
  }
}

/** Open the top-up; the picture that waits is painted by itself once it is paid. */
export function askForCredits() {
  topupRequest.value = { reason: unpaid ? "picture" : "low", onPaid: retryUnpaid, ...(unpaid ? { alone: payForIt } : {}) };
}

/**
 * Ask for the picture that waits with a payment of its own, instead of with credits.
 * @param {{rail: string, asset: string}} way
 */
async function payForIt(way) {
  const request = unpaid;
  if (!request) throw new Error("no picture waits");
  const body = { ...request.body, funding: { rail: way.rail, pay_asset: way.asset } };
  const answer = await api("POST", "/v1/generations", { body, key: newKey() });
  unpaid = null;
  update({ phase: "waiting", ...known(answer), state: answer.state });
  if (!answer.topup) throw new Error("no way to pay came");
  return answer.topup;
}

export function retryUnpaid() {
  const request = unpaid;
  unpaid = null;
  if (request) send(request);
}

/** The same request with the same key: if it did arrive the first time, it runs only that once. */
export function again() {
  if (job.value?.request) send(job.value.request);
}

/** @param {Partial<import("../../api.d.ts").GenerationStateOut> & {id: string, state: string}} data */
const known = (data) => ({
  id: data.id,
  state: data.state,
  ...("position" in data ? { position: data.position } : {}),
  ...("eta_seconds" in data ? { eta: data.eta_seconds } : {}),
  ...("workers" in data ? { workers: data.workers } : {}),
  ...(data.image_url ? { image: data.image_url } : {}),
  ...(data.credits ? { credits: data.credits } : {}),
  ...(data.thumbnail_url ? { thumbnail: data.thumbnail_url } : {}),
  ...(data.message ? { message: data.message } : {}),
});

/** @param {import("../../api.d.ts").GenerationStateOut} data */
function take(data) {
  const now = job.value;
  if (!now || now.phase === "live" || now.id !== data.id || OVER.has(now.state)) return;
  const next = known(data);
  if (!OVER.has(next.state)) return update({ phase: "waiting", ...next });
  if (next.state === "completed" && !next.image) next.image = `/v1/generations/${next.id}/image`;
  update({ phase: next.state === "completed" ? "done" : "over", ...next });
  if (next.state === "completed") keep({ id: next.id, image: next.image, thumbnail: next.thumbnail, prompt: now.prompt, credits: next.credits });
  loadAccount().catch(() => {});
}

/** Ask the server how the picture stands. */
export async function read() {
  const now = job.value;
  if (!now?.id || OVER.has(now.state)) return;
  await api("GET", `/v1/generations/${now.id}`).then(take, () => {});
}

export async function cancel() {
  const id = job.value?.id;
  if (!id) return;
  update({ cancelling: true });
  await api("DELETE", `/v1/generations/${id}`).then(
    take,
    (error) => update({ cancelling: false, problem: error }),
  );
  await read();
}

/** @param {any} picture from the strip */
export function showPicture(picture) {
  job.value = { phase: "done", state: "completed", ...picture };
}

/** @param {import("../../api.d.ts").ProgressOut} data */
function progress(data) {
  const now = job.value;
  if (!now || now.id !== data.id || OVER.has(now.state)) return;
  update({
    state: data.state ?? now.state,
    position: data.position ?? null,
    workers: data.workers ?? null,
    eta: typeof data.eta_seconds === "number" ? { low: data.eta_seconds, high: data.eta_seconds } : data.eta_seconds ?? now.eta,
    progress: data.max ? { value: data.value, max: data.max } : now.progress,
    preview: data.preview ?? now.preview,
  });
}

start().then(() => {
  on("generation", (data) => (data.state === "completed" && !data.image_url ? read() : take(data)));
  on("progress", progress);
  on("open", () => read());
  poll(() => online.value && read(), { quick: 2_000, slow: 8_000 });
});

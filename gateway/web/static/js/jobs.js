// Asking for pictures: one request, however often the network makes us repeat it.
import { signal } from "@preact/signals";
import { OVER } from "./alone_state.js";
import { api, newKey, Problem } from "./api.js";
import { on, poll } from "./events.js";
import { recallHere, rememberHere } from "./kept.js";
import { base64 } from "./pad.js";
import { loadAccount, online, start, topupRequest } from "./store.js";
import { toast } from "./ui.js";

/** Whether the payment of the picture under way is shown, if it waits for one of its own. */
export const paying = signal(false);

/**
 * What the result page shows: {phase, id, state, position, eta, progress, preview, problem, sketch, prompt, since, topup, expires_at}.
 * @type {import("@preact/signals").Signal<any>}
 */
export const job = signal(null);
/** Pictures of this session, newest first. @type {import("@preact/signals").Signal<any[]>} */
export const gallery = signal(JSON.parse(recallHere("gallery") ?? "[]"));

/** @param {any} picture */
function keep(picture) {
  if (gallery.value.some((one) => one.id === picture.id)) return;
  gallery.value = [picture, ...gallery.value].slice(0, 24);
  rememberHere("gallery", JSON.stringify(gallery.value));
}

/** A request that waits for credits, with the key under which it will run once. */
let unpaid = /** @type {null | {key: string, body: any, sketch: Blob}} */ (null);

/** @param {any} change */
function update(change) {
  if (job.value) job.value = { ...job.value, ...change };
}

/** @typedef {{prompt: string, sketch: Blob, seed?: number, strength?: number}} Asked */

/** @param {Asked} request */
export async function paint(request) {
  await send({ key: newKey(), body: await bodyOf(request), sketch: request.sketch });
}

/** The same, paid for alone. @param {Asked} request @param {Way} way */
export async function paintAlone(request, way) {
  await send({ key: newKey(), body: alone(await bodyOf(request), way), sketch: request.sketch });
}

/** @typedef {{rail: string, asset: string}} Way */

/** @param {any} body @param {Way} way */
const alone = (body, way) => ({ ...body, funding: { rail: way.rail, pay_asset: way.asset } });

/** @param {Asked} request */
async function bodyOf({ prompt, sketch, seed, strength }) {
  return {
    prompt,
    sketch: { content_type: "image/png", data: await base64(sketch) },
    ...(seed === undefined ? {} : { seed }),
    ...(strength === undefined ? {} : { strength }),
  };
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
    paying.value = answer.state === "awaiting_payment";
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
  const prices = job.value?.problem?.body.image_prices ?? [];
  topupRequest.value = { reason: unpaid ? "picture" : "low", onPaid: retryUnpaid, ...(unpaid ? { alone: { prices, pay: payForIt } } : {}) };
}

/** The picture that waits, with a payment of its own instead of credits. @param {Way} way */
function payForIt(way) {
  const request = unpaid;
  topupRequest.value = null;
  if (request) return send({ key: newKey(), body: alone(request.body, way), sketch: request.sketch });
  return Promise.resolve();
}

/** Buy credits for the picture that was to be paid for alone: its own payment is cancelled first. */
export async function creditsInstead() {
  const request = job.value?.request;
  if (job.value?.state === "awaiting_payment") await cancel();
  paying.value = false;
  if (!request) {
    topupRequest.value = { reason: "low" };
    return;
  }
  const { funding: _, ...body } = request.body;
  await send({ key: newKey(), body, sketch: request.sketch });
}

/** The wallet did not come back: its invoice is closed, and another one asked for. Money that came meanwhile wins. */
export async function renewPayment() {
  const request = job.value?.request;
  if (job.value?.state !== "awaiting_payment") return;
  await cancel();
  if (job.value?.state !== "cancelled") return;
  if (!request) toast("The wallet did not answer, so that invoice is closed. Press Paint for a new one.");
  else {
    toast("The wallet did not answer. Here is a new invoice; the old one is closed.");
    await send({ ...request, key: newKey() });
  }
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
  ...("topup" in data ? { topup: data.topup } : {}),
  ...("expires_at" in data ? { expires_at: data.expires_at } : {}),
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

/** A picture that was asked for before this page was opened, here or in another tab, is shown again. */
async function resume() {
  const { generations } = await api("GET", "/v1/generations");
  const newest = generations[0];
  if (!newest || job.value) return;
  job.value = { phase: "waiting", since: Date.now(), ...known(newest) };
  paying.value = newest.state === "awaiting_payment";
}

// Answers come in any order: what was asked for before the newest news would show an invoice that is paid.
let asked = 0;
let newest = 0;

/** Ask the server how the picture stands. */
export async function read() {
  const now = job.value;
  if (!now?.id || OVER.has(now.state)) return;
  const mine = ++asked;
  await api("GET", `/v1/generations/${now.id}`).then((data) => {
    if (mine <= newest) return;
    newest = mine;
    take(data);
  }, () => {});
}

/** @param {import("../../api.d.ts").GenerationStateOut} data of the stream */
function told(data) {
  if (data.state === "completed" && !data.image_url) {
    read();
    return;
  }
  if (data.id === job.value?.id) newest = asked;
  take(data);
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
  on("generation", told);
  on("progress", progress);
  on("open", () => read());
  on("topup", (data) => {
    if (data.generation_id && data.generation_id === job.value?.id) update({ topup: data });
  });
  resume().catch(() => {});
  poll(() => online.value && read(), { quick: 2_000, slow: 8_000 });
  // A payment is noticed within two seconds, even by a stream that is open and silent.
  setInterval(() => { if (online.value && job.value?.state === "awaiting_payment" && !document.hidden) read(); }, 2_000);
});

// One image and its debit: the entry that paid for it, and the two around it.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { PayAlone } from "./alone_pay.js";
import { endsAt, isHeld, OVER, standing } from "./alone_state.js";
import { api, Problem } from "./api.js";
import { on, poll } from "./events.js";
import { money, plural, timeOfDay } from "./money.js";
import { mount } from "./shell.js";
import { latest, loadRails, online, start } from "./store.js";
import { Entry, readStatement } from "./statement.js";
import { html, Icon } from "./ui.js";

const id = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const picture = signal(/** @type {import("../../api.d.ts").GenerationStateOut | null} */ (null));
const entries = signal(/** @type {import("../../api.d.ts").EntryOut[]} */ ([]));
const problem = signal(/** @type {Problem | null} */ (null));

const asking = latest(picture);

async function load() {
  const show = asking();
  try {
    show(await api("GET", `/v1/generations/${encodeURIComponent(id)}`));
    problem.value = null;
    entries.value = (await readStatement({ reference: id })).entries.toReversed();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    // What is shown stays while the server does not answer: somebody may be about to pay.
    if (!picture.value || error.status === 404) problem.value = error;
  }
}

/** @type {Record<string, string>} */
const STATES = { awaiting_payment: "Waiting for its payment", queued: "In the queue", running: "Being painted", settling: "Being paid", completed: "Delivered",
  failed: "Failed, not charged", cancelled: "Cancelled, not charged", superseded: "Replaced by a newer one, not charged", expired: "Not painted in time, not charged", blocked: "Blocked, not charged" };

const cancelling = signal(false);
async function cancel() {
  cancelling.value = true;
  await api("DELETE", /** @type {"/v1/generations/{job_id}"} */ (`/v1/generations/${encodeURIComponent(id)}`)).catch(() => {});
  cancelling.value = false;
  await load();
}

/** An image that is paid for alone, until it is here. @param {{now: import("../../api.d.ts").GenerationStateOut}} props */
function Alone({ now }) {
  const over = OVER.has(now.state);
  const ends = endsAt(now);
  const waits = now.state === "queued" && now.position;
  return html`<h1>One image</h1><div class="card topup-card"><${PayAlone} now=${{ ...now, cancelling: cancelling.value }} onCancel=${cancel} onRenew=${cancel} />
    ${waits && html`<p class="connection num">${now.position === 1 ? "Next in line" : `Number ${now.position} in line`}${now.eta_seconds ? `, about ${now.eta_seconds.low} to ${now.eta_seconds.high} s` : ""}</p>`}
    ${!over && now.state !== "awaiting_payment" && now.state !== "settling" && html`${ends && html`<p class="connection"><${Icon} name="clock" /><span>${isHeld(now.topup) ? `Not here by ${timeOfDay(ends)}? Then your payment goes back by itself.` : `It is painted by ${timeOfDay(ends)}, or the money stays yours.`}</span></p>`}
      <div class="pay-buttons"><button type="button" class="button button-quiet" disabled=${cancelling.value} onClick=${cancel}>${cancelling.value ? "Cancelling" : "Cancel this picture"}</button></div>`}
    <div class="pay-buttons"><a class=${`button ${over ? "button-primary" : "button-quiet"}`} href="/">${over ? "Back to the sketchbook" : "Keep drawing meanwhile"}</a></div></div>`;
}

function ImagePage() {
  useEffect(() => {
    start().then(() => {
      loadRails().catch(() => {});
      load();
      on("generation", (data) => { if (data.id === id) load(); });
      on("topup", (data) => { if (data.generation_id === id) load(); });
      on("open", load);
    });
    // A stream may be open and silent: whoever waits for a payment asks every two seconds all the same.
    return poll(() => {
      const now = picture.value;
      if (online.value && !document.hidden && now && !OVER.has(now.state)) load();
    }, { quick: 2_000, slow: 2_000 });
  }, []);
  const now = picture.value;
  if (problem.value) return html`<h1>Image</h1><p class="note note-bad" role="alert"><${Icon} name="warn" /><span><strong>This image cannot be shown.</strong>${problem.value.status === 404 ? "It belongs to another browser or account, or the address is wrong." : problem.value.message}</span></p>
    <p><a class="button" href="/account">My account</a></p>`;
  if (!now) return html`<h1>Image</h1><div class="skeleton skeleton-tall"></div>`;
  if (now.topup && !["completed"].includes(now.state)) return html`<${Alone} now=${now} />`;
  const { held = 0, captured = 0 } = now.credits ?? {};
  return html`<h1>${now.state === "completed" ? "One image, one debit" : "One image"}</h1>
    <div class="image-page">
      <figure class="polaroid">${now.image_url ? html`<img src=${now.image_url} alt="The painted picture" />` : html`<div class="polaroid-none"><${Icon} name="image" /></div>`}
        <figcaption>${now.message ?? STATES[now.state] ?? now.state}</figcaption></figure>
      <div class="image-side">
        <p class=${`tag ${now.state === "completed" ? "tag-good" : "tag-calm"}`}>${STATES[now.state] ?? now.state}</p>
        <p class="image-cost num">${now.topup ? money(now.topup.received[0] ?? now.topup.amount_due) : captured ? plural(captured, "credit") : held ? `${plural(held, "credit")} held` : "Nothing charged"}</p>
        <p class="muted">${now.topup ? standing(now).text : "A credit is first held, then used when the image is delivered, or given back."}</p>
        <div class="actions-row">${now.image_url && html`<a class="button button-primary" href=${now.image_url} download=${`llamasketch-${id}`}><${Icon} name="download" />Download</a>`}
          <a class="button" href=${`/account?reference=${id}#statement`}>In my statement</a></div>
        <p class="hint mono">${id}</p>
        ${typeof now.seed === "number" && html`<p class="hint">Seed <span class="num">${now.seed}</span></p>`}
      </div>
    </div>
    <section aria-labelledby="trail-title"><h2 id="trail-title">What it did to your credits</h2>
      ${entries.value.length ? html`<ol class="entries card">${entries.value.map((entry) => html`<${Entry} key=${entry.position} entry=${entry} />`)}</ol>` : html`<p class="card empty muted">No entries yet.</p>`}</section>`;
}

mount(html`<${ImagePage} />`, "image");

// One image and its debit: the entry that paid for it, and the two around it.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { on } from "./events.js";
import { plural } from "./money.js";
import { mount } from "./shell.js";
import { start } from "./store.js";
import { Entry, readStatement } from "./statement.js";
import { html, Icon } from "./ui.js";

const id = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const picture = signal(/** @type {import("../../api.d.ts").GenerationStateOut | null} */ (null));
const entries = signal(/** @type {import("../../api.d.ts").EntryOut[]} */ ([]));
const problem = signal(/** @type {Problem | null} */ (null));

async function load() {
  try {
    picture.value = await api("GET", `/v1/generations/${encodeURIComponent(id)}`);
    entries.value = (await readStatement({ reference: id })).entries.toReversed();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem.value = error;
  }
}

/** @type {Record<string, string>} */
const STATES = { awaiting_payment: "Waiting for its payment", queued: "In the queue", running: "Being painted", settling: "Being paid", completed: "Delivered",
  failed: "Failed, not charged", cancelled: "Cancelled, not charged", superseded: "Replaced by a newer one, not charged", expired: "Not painted in time, not charged", blocked: "Blocked, not charged" };

function ImagePage() {
  useEffect(() => {
    start().then(() => {
      load();
      on("generation", (data) => { if (data.id === id) load(); });
    });
  }, []);
  const now = picture.value;
  if (problem.value) return html`<h1>Image</h1><p class="note note-bad" role="alert"><${Icon} name="warn" /><span><strong>This image cannot be shown.</strong>${problem.value.status === 404 ? "It belongs to another browser or account, or the address is wrong." : problem.value.message}</span></p>
    <p><a class="button" href="/account">My account</a></p>`;
  if (!now) return html`<h1>Image</h1><div class="skeleton skeleton-tall"></div>`;
  const { held = 0, captured = 0 } = now.credits ?? {};
  return html`<h1>${now.state === "completed" ? "One image, one debit" : "One image"}</h1>
    <div class="image-page">
      <figure class="polaroid">${now.image_url ? html`<img src=${now.image_url} alt="The painted picture" />` : html`<div class="polaroid-none"><${Icon} name="image" /></div>`}
        <figcaption>${now.message ?? STATES[now.state] ?? now.state}</figcaption></figure>
      <div class="image-side">
        <p class=${`tag ${now.state === "completed" ? "tag-good" : "tag-calm"}`}>${STATES[now.state] ?? now.state}</p>
        <p class="image-cost num">${captured ? plural(captured, "credit") : held ? `${plural(held, "credit")} held` : "Nothing charged"}</p>
        <p class="muted">A credit is first held, then used when the image is delivered, or given back.</p>
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

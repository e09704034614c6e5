// Automatic top-up: turned on with consent, with a saved card; how it stands, and what is to be done.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { on } from "./events.js";
import { moment, money, number } from "./money.js";
import { latest, loadAccount } from "./store.js";
import { html, Icon, toast } from "./ui.js";

/** @typedef {import("../../api.d.ts").AutoTopupOut} AutoTopup */

/** How often it is asked how it stands while it is on, in milliseconds. */
const EVERY = 5_000;
const standing = signal(/** @type {AutoTopup | null} */ (null));
const packs = signal(/** @type {import("../../api.d.ts").PackOut[]} */ ([]));
const editing = signal(false);
const busy = signal("");
const wrong = signal("");
const chosen = { pack: signal("pack_500"), threshold: signal("50"), limit: signal("20"), agreed: signal(false) };

const usd = (/** @type {number} */ minor) => money({ amount_minor: minor, asset: "USD" });

const asking = latest(standing);

async function load() {
  const show = asking();
  show(await api("GET", "/v1/auto-topup"));
}

/** @param {string} name @param {() => Promise<AutoTopup>} ask */
async function run(name, ask) {
  busy.value = name;
  wrong.value = "";
  try {
    const answer = await ask();
    asking()(answer); // newer than whatever was read meanwhile
    editing.value = false;
    if (name !== "off" && standing.value?.page_url) location.assign(standing.value.page_url);
    await loadAccount().catch(() => {});
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    wrong.value = error.message;
  }
  busy.value = "";
}

function edit() {
  const now = standing.value;
  if (now?.pack) chosen.pack.value = now.pack;
  if (now?.threshold) chosen.threshold.value = String(now.threshold);
  if (now?.limit_minor) chosen.limit.value = String(Math.floor(now.limit_minor / 100));
  chosen.agreed.value = false;
  wrong.value = "";
  editing.value = true;
}

const agree = () => run("on", () => api("POST", "/v1/auto-topup", { body: {
  pack: chosen.pack.value,
  threshold: Number.parseInt(chosen.threshold.value, 10) || 0,
  limit_minor: (Number.parseInt(chosen.limit.value, 10) || 0) * 100,
  consent: true,
} }));

/** @type {Record<string, string>} */
const REASONS = {
  not_saved: "No card was saved.",
  card_removed: "The card is not there any more.",
  card_expired: "The card has expired.",
  declined: "The bank declined the card for good.",
  disputed: "A payment of yours is disputed at your bank.",
  refunded: "The money of an automatic top-up went back to you.",
  price_changed: "The pack is not sold as you agreed to it any more.",
};

function Form() {
  const pack = packs.value.find((one) => one.name === chosen.pack.value);
  return html`<form class="card auto-form" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); agree(); }}>
    <label>Buy<select class="input" value=${chosen.pack.value} onChange=${(/** @type {any} */ event) => { chosen.pack.value = event.target.value; }}>
      ${packs.value.map((one) => html`<option key=${one.name} value=${one.name}>${one.label} for ${usd(one.price_usd_minor)}</option>`)}</select></label>
    <label>when fewer images are left than<input class="input" type="number" inputmode="numeric" min="1" max=${(pack?.credits ?? 2) - 1} required value=${chosen.threshold.value} onInput=${(/** @type {any} */ event) => { chosen.threshold.value = event.target.value; }} /></label>
    <label>and at most, in a month, US dollars<input class="input" type="number" inputmode="numeric" min=${Math.ceil((pack?.price_usd_minor ?? 100) / 100)} max="10000" required value=${chosen.limit.value} onInput=${(/** @type {any} */ event) => { chosen.limit.value = event.target.value; }} /></label>
    <label class="auto-agree"><input type="checkbox" required checked=${chosen.agreed.value} onChange=${(/** @type {any} */ event) => { chosen.agreed.value = event.target.checked; }} /><span>${standing.value?.consent_text}</span></label>
    ${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}
    <div class="actions-row"><button type="submit" class="button button-primary" disabled=${busy.value !== ""}>${busy.value === "on" ? "Turning on" : standing.value?.card ? "Agree and change it" : "Agree and save a card"}</button>
      <button type="button" class="button" onClick=${() => { editing.value = false; }}>Not now</button></div>
  </form>`;
}

/** @param {AutoTopup} now */
function sentence(now) {
  switch (now.state) {
    case "saving": return "It begins when a card is saved. Nothing is charged before.";
    case "charging": return "Your card is being charged just now.";
    case "waiting": return `The bank declined it, and nothing was charged. It is tried again on ${moment(now.next_attempt_at ?? "")}.`;
    case "confirming": return "Your bank wants you to confirm the card. Nothing was charged.";
    case "limited": return `This month's limit is reached. It goes on on ${moment(now.next_attempt_at ?? "")}.`;
    default: return "";
  }
}

/** @param {{now: AutoTopup}} props */
function On({ now }) {
  const warns = now.state === "waiting" || now.state === "confirming" || now.state === "limited";
  const said = sentence(now);
  return html`<article class="card subscription" aria-label="Automatic top-up, on">
    <div class="lot-head"><h3>${now.pack_label} for ${usd(now.price_minor ?? 0)}</h3><span class=${`tag ${warns || now.state === "saving" ? "tag-warn" : "tag-good"}`}>${now.state}</span></div>
    <p>Bought when fewer than ${number(now.threshold ?? 0)} images are left${now.card && html`, with <strong>${now.card.label}</strong>`}.
      ${" "}<span class="num">${usd(now.charged_minor)}</span> of at most <span class="num">${usd(now.limit_minor ?? 0)}</span> this month.</p>
    ${said && html`<p class=${`note ${warns ? "note-warn" : "note-calm"}`} role="status"><${Icon} name=${warns ? "warn" : "info"} /><span>${said}</span></p>`}
    ${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}
    <div class="actions-row">
      ${(now.state === "confirming" || now.state === "saving") && html`<button type="button" class="button button-primary" disabled=${busy.value !== ""} onClick=${() => run("card", () => api("POST", "/v1/auto-topup/card"))}>${now.state === "saving" ? "Save a card" : "Confirm with your bank"}</button>`}
      ${now.state !== "charging" && now.state !== "saving" && html`<button type="button" class="button" onClick=${edit}>Change it</button>`}
      ${now.card && now.state !== "confirming" && html`<button type="button" class="button" disabled=${busy.value !== ""} onClick=${() => run("card", () => api("POST", "/v1/auto-topup/card"))}>Another card</button>`}
      <button type="button" class="link-button" disabled=${busy.value !== ""} onClick=${() => run("off", () => api("POST", "/v1/auto-topup/off")).then(() => { if (!wrong.value) toast("Automatic top-up is off, and the card is forgotten."); })}>Turn it off</button>
    </div></article>`;
}

/** @param {{now: AutoTopup}} props */
function Off({ now }) {
  const why = REASONS[now.reason];
  return html`<div class="card auto-off">
    ${why && html`<p class="note note-warn" role="status"><${Icon} name="warn" /><span><strong>It was turned off</strong>${why} Nothing is charged by itself.</span></p>`}
    <p class="muted">Let a pack be bought with a saved card when you run low, never beyond your limit.</p>
    <div class="actions-row"><button type="button" class="button" onClick=${edit}>Set it up</button></div></div>`;
}

export function AutoTopupSection() {
  useEffect(() => {
    load().then(() => { if (location.hash === "#auto-topup") document.getElementById("auto-topup")?.scrollIntoView(); }, () => {});
    api("GET", "/v1/plans").then((answer) => { packs.value = answer.packs.filter((pack) => pack.kind !== "pass" && pack.credits > 1); }, () => {});
    on("account", () => load().catch(() => {}));
    // A decline moves no credits: no event of the account tells of it.
    const again = setInterval(() => { if (!document.hidden && standing.value && standing.value.state !== "off") load().catch(() => {}); }, EVERY);
    return () => clearInterval(again);
  }, []);
  const now = standing.value;
  if (!now || (!now.available && now.state === "off")) return null;
  return html`<section id="auto-topup" aria-labelledby="auto-topup-title"><h2 id="auto-topup-title">Automatic top-up</h2>
    ${editing.value ? html`<${Form} />` : now.state === "off" ? html`<${Off} now=${now} />` : html`<${On} now=${now} />`}</section>`;
}

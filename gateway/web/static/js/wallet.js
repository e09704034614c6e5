// The sandbox wallet: pays what this sandbox asks for, with money that does not exist.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { on, poll } from "./events.js";
import { money, number, walletAmount } from "./money.js";
import { mount } from "./shell.js";
import { loadRails, start } from "./store.js";
import { missing, payUri } from "./topup_state.js";
import { html, Icon } from "./ui.js";

const open = signal(/** @type {any[] | null} */ (null));
const log = signal(/** @type {{id: number, ok: boolean, text: string}[]} */ ([]));
const address = signal(/** @type {string | null} */ (null));
const busy = signal("");
const pasted = signal("");
const override = signal("");
let lines = 0;

/** @param {boolean} ok @param {string} text */
function say(ok, text) {
  log.value = [{ id: ++lines, ok, text }, ...log.value].slice(0, 8);
}

async function load() {
  await api("GET", "/sandbox/api/open").then((answer) => { open.value = answer.topups; address.value = answer.lightning_address; }, (error) => { open.value ??= []; say(false, error.message); });
}

/** @param {string} text @param {string} [amount] @param {string} [id] */
async function pay(text, amount, id = "paste") {
  busy.value = id;
  try {
    const answer = await api("POST", "/sandbox/api/pay", { body: { text, ...(amount ? { amount } : {}) } });
    say(true, answer.detail || answer.state);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(false, error.message);
  }
  busy.value = "";
  await load();
}

/** @param {{topup: any}} props */
function Open({ topup }) {
  const { kind, text, url } = topup.instructions ?? {};
  const rest = missing(topup);
  const uri = payUri(topup, walletAmount(rest));
  /** @param {bigint} numerator @param {bigint} denominator */
  const part = (numerator, denominator) => walletAmount({ asset: rest.asset, amount_minor: (BigInt(rest.amount_minor) * numerator) / denominator });
  return html`<li class="card bill"><div class="bill-head"><strong class="num">${money(rest)}</strong><span class="tag">${topup.state}</span></div>
    <p class="hint">${number(topup.credits)} images · <a href=${`/topups/${topup.id}`}>${topup.id}</a></p>
    <div class="actions-row">
      ${kind === "redirect" ? html`<a class="button button-primary" href=${url}><${Icon} name="card" />Open the card page</a><span class="hint">Pay or decline there.</span>`
        : html`<button type="button" class="button button-primary" disabled=${busy.value === topup.id} onClick=${() => pay(uri ?? text, undefined, topup.id)}>Pay</button>`}
      ${kind === "address" && html`<button type="button" class="button" disabled=${busy.value === topup.id} onClick=${() => pay(uri ?? text, part(1n, 2n), topup.id)}>Pay half</button>
        <button type="button" class="button" disabled=${busy.value === topup.id} onClick=${() => pay(uri ?? text, part(3n, 2n), topup.id)}>Pay half too much</button>`}
    </div></li>`;
}

function Paste() {
  const liquid = /^liquid/i.test(pasted.value.trim());
  return html`<form class="card paste" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); if (pasted.value.trim()) pay(pasted.value.trim(), liquid ? override.value : undefined); }}>
    <h2>Pay something</h2>
    <div class="field"><label for="paste">Lightning invoice or Liquid URI</label>
      <textarea id="paste" class="input mono" rows="3" placeholder="lnbcrt… or liquid…:…?amount=…" value=${pasted.value} onInput=${(/** @type {any} */ event) => { pasted.value = event.target.value; }}></textarea></div>
    ${liquid && html`<div class="field"><label for="override">Another amount</label><input id="override" class="input num" inputmode="decimal" placeholder="as asked" value=${override.value} onInput=${(/** @type {any} */ event) => { override.value = event.target.value; }} />
      <p class="hint">Less shows the underpaid screen, more the surplus.</p></div>`}
    <button type="submit" class="button button-primary" disabled=${busy.value === "paste"}>${busy.value === "paste" ? "Paying" : "Pay"}</button></form>`;
}

function Wallet() {
  useEffect(() => {
    loadRails().catch(() => {});
    const stop = poll(load, { quick: 2_000, slow: 6_000 });
    start().then(() => {
      load();
      on("topup", load);
    });
    return stop;
  }, []);
  return html`<div class="hazard" role="note"><p><strong>This is a toy.</strong> The money here does not exist. In production this page does not exist either.</p></div>
    <header class="page-head"><h1>Sandbox wallet</h1><p class="lead">A payer with deep pockets, for trying every way a payment can go. It pays what this browser has asked for.</p></header>
    <div class="wallet-grid"><section aria-labelledby="open-title"><h2 id="open-title">Open bills of this browser</h2>
      ${open.value === null ? html`<div class="skeleton skeleton-tall"></div>` : open.value.length === 0
        ? html`<div class="card empty"><p class="muted">Nothing to pay. Start a top-up in another tab, then come back.</p><p><a class="button" href="/account">To the account</a></p></div>`
        : html`<ul class="bills">${open.value.map((topup) => html`<${Open} key=${topup.id} topup=${topup} />`)}</ul>`}</section>
    <div class="wallet-side"><${Paste} />
      ${address.value && html`<section class="card" aria-labelledby="address-title"><h2 id="address-title">Get something back</h2>
        <p>Ask for a refund on a receipt of a Lightning payment, and name this wallet’s address:</p><p><code class="mono">${address.value}</code></p></section>`}
      <section class="wallet-log" aria-labelledby="log-title"><h2 id="log-title">What happened</h2>
        <ol aria-live="polite">${log.value.length === 0 && html`<li class="muted">Nothing yet.</li>`}${log.value.map((line) => html`<li key=${line.id} class=${line.ok ? "log-ok" : "log-bad"}><${Icon} name=${line.ok ? "check" : "warn"} /><span>${line.text}</span></li>`)}</ol></section></div></div>`;
}

mount(html`<${Wallet} />`, "wallet");

// The operators' page: what waits for a person, payments, and what may be done with them.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { moment, money, number, plural, scales } from "./money.js";
import { ACTIONS, Act, act, acted } from "./operator_actions.js";
import { Books } from "./operator_books.js";
import { mount } from "./shell.js";
import { start } from "./store.js";
import { html, Icon } from "./ui.js";

/** @typedef {import("../../api.d.ts").PaymentRowOut} PaymentRow */
/** @typedef {import("../../api.d.ts").SuspendedOut} Suspended */

const place = signal(location.hash.slice(1) || "waiting");
const attention = signal(/** @type {import("../../api.d.ts").AttentionOut | null} */ (null));
const rows = signal(/** @type {PaymentRow[] | null} */ (null));
const more = signal(/** @type {string | null} */ (null));
const detail = signal(/** @type {import("../../api.d.ts").PaymentDetailOut | null} */ (null));
const problem = signal(/** @type {Problem | null} */ (null));
const asked = signal({ search: "", state: "" });

/** @param {() => Promise<void>} work */
async function guarded(work) {
  problem.value = null;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem.value = error;
  }
}

const readAttention = () => guarded(async () => { attention.value = await api("GET", "/v1/operator/attention"); });

/** @param {boolean} next */
const readPayments = (next) => guarded(async () => {
  const params = new URLSearchParams({ limit: "50" });
  if (asked.value.search) params.set("search", asked.value.search);
  if (asked.value.state) params.set("state", asked.value.state);
  if (next && more.value) params.set("before", more.value);
  const page = await api("GET", /** @type {"/v1/operator/payments"} */ (`/v1/operator/payments?${params}`));
  rows.value = next ? [...(rows.value ?? []), ...page.payments] : page.payments;
  more.value = page.next_before;
});

/** @param {string} id */
const readDetail = (id) => guarded(async () => {
  detail.value = await api("GET", /** @type {"/v1/operator/payments/{payment_id}"} */ (`/v1/operator/payments/${encodeURIComponent(id)}`));
});

function read() {
  if (place.value.startsWith("pay_")) {
    if (detail.value?.topup.id !== place.value) detail.value = null;
    return readDetail(place.value);
  }
  return place.value === "payments" ? readPayments(false) : readAttention();
}

/** @param {{name: string, children?: any}} props */
const Fact = ({ name, children }) => html`<div><dt>${name}</dt><dd>${children}</dd></div>`;
/** @param {{id: string}} props */
const PaymentLink = ({ id }) => html`<a class="mono" href=${`#${id}`}>${id}</a>`;

/** @param {{title: string, count: number, none: string, children?: any}} props */
function Section({ title, count, none, children }) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  return html`<section class="op-section" aria-labelledby=${`op-${id}`}><h2 id=${`op-${id}`}>${title} ${count > 0 && html`<span class="tag">${number(count)}</span>`}</h2>
    ${count === 0 ? html`<p class="muted">${none}</p>` : html`<ul class="op-list">${children}</ul>`}</section>`;
}

/** @param {{children?: any, actions?: any}} props */
const Row = ({ children, actions }) => html`<li class="card op-row"><dl class="op-facts">${children}</dl>${actions && html`<div class="actions-row">${actions}</div>`}</li>`;

/** @param {{name: keyof typeof ACTIONS, about: Record<string, any>, label?: string}} props */
const Do = ({ name, about, label }) => html`<button type="button" class="button" onClick=${() => { act.value = { name, about }; }}>${label ?? ACTIONS[name].button}</button>`;

/** @type {Record<string, string>} */
const WHY = { mismatched: "another asset than asked", too_small: "worth less than a credit", unpriced: "waits for a rate, and is credited by itself" };

/** Of a foreign asset every digit. @param {{amount_minor: number, asset: string}} sum */
const exactMoney = (sum) => (sum.asset in scales ? money(sum) : `${sum.amount_minor} smallest units of ${sum.asset}`);

/** @param {{one: Suspended, listed?: boolean}} props */
function SuspendedRow({ one, listed }) {
  const about = { payment: one.payment_id, money_ref: one.money_ref, sum: exactMoney(one) };
  const waits = one.status !== "unpriced" && !one.going_back;
  return html`<${Row} actions=${waits && html`${one.status === "mismatched" && html`<${Do} name="accept" about=${about} />`}<${Do} name="assign" about=${about} /><${Do} name="giveBack" about=${about} />`}>
    <${Fact} name="Money"><strong class="num">${exactMoney(one)}</strong><//><${Fact} name="Why">${one.going_back ? "on its way back" : WHY[one.status]}<//>
    ${listed && html`<${Fact} name="Payment"><${PaymentLink} id=${one.payment_id} /><//>`}<${Fact} name="Since">${moment(one.first_seen_at)}<//><${Fact} name="Name"><span class="mono">${one.money_ref}</span><//><//>`;
}

/** @param {{iso: string | null}} props */
function Deadline({ iso }) {
  if (!iso) return html`the rail does not say`;
  const hours = Math.floor((new Date(iso).getTime() - Date.now()) / 3_600_000);
  return html`<span class=${hours < 48 ? "op-late" : ""}>${moment(iso)}${hours < 0 ? ", over" : hours < 48 ? `, in ${plural(hours, "hour")}` : ""}</span>`;
}

function Waiting() {
  const now = attention.value;
  if (!now) return html`<div class="skeleton skeleton-tall"></div>`;
  return html`
    <${Section} title="Disputes" count=${now.disputes.length} none="Nothing is disputed.">
      ${now.disputes.map((one) => html`<${Row} key=${one.money_ref}><${Fact} name="Evidence until"><${Deadline} iso=${one.evidence_due_by} /><//><${Fact} name="Taken"><strong class="num">${money(one)}</strong><//>
        <${Fact} name="Payment"><${PaymentLink} id=${one.payment_id} /><//>${one.external_ref && html`<${Fact} name="At the rail"><span class="mono">${one.external_ref}</span><//>`}<//>`)}<//>
    <${Section} title="Suspense" count=${now.suspended.length} none="No money waits.">${now.suspended.map((one) => html`<${SuspendedRow} key=${one.money_ref} one=${one} listed />`)}<//>
    <${Section} title="Refunds under way" count=${now.refunds.length} none="Every refund has ended.">
      ${now.refunds.map((one) => html`<${Row} key=${one.refund_id} actions=${one.by_hand && html`<${Do} name="sent" about=${{ payment: one.payment_id, refund: one.refund_id }} /><${Do} name="failed" about=${{ payment: one.payment_id, refund: one.refund_id }} />`}>
        <${Fact} name="Payment"><${PaymentLink} id=${one.payment_id} /><//><${Fact} name="How">${one.by_hand ? "send it by hand" : one.attempts ? `tried ${plural(one.attempts, "time")}` : "by itself"}<//>
        ${one.destination && html`<${Fact} name="To"><span class="mono">${one.destination}</span><//>`}${one.last_problem && html`<${Fact} name="Problem">${one.last_problem}<//>`}<//>`)}<//>
    <${Section} title="Debts" count=${now.debts.length} none="Nobody owes anything.">
      ${now.debts.map((one) => html`<${Row} key=${one.account_id} actions=${html`<${Do} name="forgive" about=${{ account: one.account_id, debt: one.debt }} />`}>
        <${Fact} name="Owed"><strong class="num">${plural(one.debt, "credit")}</strong><//><${Fact} name="Account"><span class="mono">${one.account_id}</span><//><//>`)}<//>
    ${now.unmatched.length > 0 && html`<${Section} title="Notifications that fit nothing" count=${now.unmatched.length} none="">
      ${now.unmatched.map((one) => html`<${Row} key=${one.id}><${Fact} name="Rail">${one.rail}<//>${one.payment_id && html`<${Fact} name="Payment"><${PaymentLink} id=${one.payment_id} /><//>`}<${Fact} name="Since">${moment(one.received_at)}<//>${one.last_problem && html`<${Fact} name="Problem">${one.last_problem}<//>`}<//>`)}<//>`}
    <${Section} title="Adjustments" count=${now.adjustments.length} none="Nothing was adjusted by hand.">
      ${now.adjustments.map((one) => html`<${Row} key=${one.at + one.account_id}><${Fact} name=${one.kind.replaceAll("_", " ")}><strong class="num">${number(one.credits)}</strong><//><${Fact} name="Account"><span class="mono">${one.account_id}</span><//>
        <${Fact} name="By">${one.actor}<//><${Fact} name="Why">${one.reason}<//><${Fact} name="At">${moment(one.at)}<//><//>`)}<//>
    <div class="actions-row"><${Do} name="adjust" about=${{}} /></div>`;
}

const STATES = ["waiting", "seen", "underpaid", "paid", "suspense", "unpriced", "disputed", "reversed", "declined", "expired"];

function Payments() {
  const found = rows.value;
  const change = (/** @type {Partial<{search: string, state: string}>} */ part) => { asked.value = { ...asked.value, ...part }; };
  return html`<form class="op-search" role="search" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); readPayments(false); }}>
      <div class="field"><label for="op-search">Payment, account, refund, reference or e-mail address</label><input id="op-search" class="input" type="search" maxlength="300" value=${asked.value.search} onInput=${(/** @type {any} */ event) => change({ search: event.target.value.trim() })} /></div>
      <div class="field field-narrow"><label for="op-state">State</label><select id="op-state" class="input" value=${asked.value.state} onChange=${(/** @type {any} */ event) => { change({ state: event.target.value }); readPayments(false); }}>
        <option value="">Any</option>${STATES.map((state) => html`<option value=${state}>${state}</option>`)}</select></div>
      <button type="submit" class="button button-primary">Search</button></form>
    ${found === null ? html`<div class="skeleton skeleton-tall"></div>` : html`<${Section} title="Payments found" count=${found.length} none="No such payment.">
      ${found.map((one) => html`<${Row} key=${one.payment_id}><${Fact} name="Payment"><${PaymentLink} id=${one.payment_id} /><//><${Fact} name="State">${one.state}<//><${Fact} name="Asked"><span class="num">${money(one.amount_due)}</span><//>
        <${Fact} name="Credited"><span class="num">${number(one.credited)}</span><//><${Fact} name="Rail">${one.rail}<//>${one.refunds > 0 && html`<${Fact} name="Refunds">${number(one.refunds)}<//>`}<${Fact} name="Opened">${moment(one.opened_at)}<//><${Fact} name="Account"><span class="mono">${one.account_id}</span><//><//>`)}<//>`}
    ${more.value && html`<button type="button" class="button button-wide" onClick=${() => readPayments(true)}>Show earlier payments</button>`}`;
}

function Detail() {
  const now = detail.value;
  if (!now) return html`<div class="skeleton skeleton-tall"></div>`;
  const { topup } = now;
  const byHand = (topup.refunds ?? []).filter((one) => one.by_hand && one.state === "requested");
  return html`<section class="op-section" aria-labelledby="op-payment"><h2 id="op-payment">Payment <span class="tag">${topup.state}</span></h2>
      <div class="card"><dl class="op-facts"><${Fact} name="Id"><span class="mono">${topup.id}</span><//><${Fact} name="Asked"><strong class="num">${money(topup.amount_due)}</strong><//><${Fact} name="Credited"><strong class="num">${number(topup.credited)}</strong><//>
        <${Fact} name="Rail">${topup.rail}<//><${Fact} name="Opened">${moment(topup.created_at)}<//><${Fact} name="Account"><span class="mono">${now.account_id}</span><//>
        ${now.external_refs.map((one) => html`<${Fact} name="At the rail"><span class="mono">${one}</span><//>`)}
        ${topup.received.map((one) => html`<${Fact} name=${one.state}><span class="num">${money(one)}</span><//>`)}</dl></div>
      <div class="actions-row"><${Do} name="adjust" about=${{ account: now.account_id }} /></div></section>
    ${now.refundable.length > 0 && html`<${Section} title="Can be refunded" count=${now.refundable.length} none="">
      ${now.refundable.map((one) => html`<${Row} key=${one.lot_id} actions=${html`<${Do} name="refund" about=${{ payment: topup.id, lot: one.lot_id, credits: one.credits, sum: money(one), to: now.refund_to }} />`}>
        <${Fact} name="Unspent"><strong class="num">${plural(one.credits, "credit")}</strong><//><${Fact} name="Worth"><strong class="num">${money(one)}</strong><//><${Fact} name="Lot"><span class="mono">${one.lot_id}</span><//><//>`)}<//>`}
    ${now.suspended.length > 0 && html`<${Section} title="In suspense" count=${now.suspended.length} none="">${now.suspended.map((one) => html`<${SuspendedRow} key=${one.money_ref} one=${one} />`)}<//>`}
    ${(topup.refunds ?? []).length > 0 && html`<${Section} title="Refunds" count=${(topup.refunds ?? []).length} none="">
      ${(topup.refunds ?? []).map((one) => html`<${Row} key=${one.id} actions=${byHand.includes(one) && html`<${Do} name="sent" about=${{ payment: topup.id, refund: one.id }} /><${Do} name="failed" about=${{ payment: topup.id, refund: one.id }} />`}>
        <${Fact} name="State">${one.state}<//><${Fact} name="Money"><strong class="num">${money(one)}</strong><//><${Fact} name="Credits"><span class="num">${number(one.credits)}</span><//><${Fact} name="Since">${moment(one.requested_at)}<//><${Fact} name="Id"><span class="mono">${one.id}</span><//><//>`)}<//>`}
    <section class="op-section" aria-labelledby="op-events"><h2 id="op-events">What happened</h2>
      <ol class="op-events card">${now.events.map((one) => html`<li key=${one.position}><details><summary><strong>${one.event.replace(/^rails\.|\.v\d+$/g, "").replaceAll("_", " ")}</strong> · ${moment(one.recorded_at)} · <span class="mono">${one.actor}</span></summary>
        <pre tabindex="0">${JSON.stringify(one.data, null, 2)}</pre></details></li>`)}</ol></section>`;
}

/** @type {[string, string][]} */
const PLACES = [["waiting", "Waiting for you"], ["payments", "Payments"], ["books", "Rails and books"]];

function Refused() {
  const signedOut = problem.value?.status === 401;
  return html`<p class="note note-warn" role="alert"><${Icon} name="warn" /><span><strong>Operators only.</strong> ${signedOut ? "Sign in first." : "This is for whoever runs this site. Somebody at its command line can let you in: llamasketch operators add."}</span></p>
    <p><a class="button" href="/account">My account</a></p>`;
}

function Page() {
  useEffect(() => {
    const follow = () => { place.value = location.hash.slice(1) || "waiting"; read(); };
    addEventListener("hashchange", follow);
    start().then(read);
    acted(read);
    return () => removeEventListener("hashchange", follow);
  }, []);
  if (problem.value && [401, 403].includes(problem.value.status)) return html`<h1>Operators</h1><${Refused} />`;
  const shown = place.value.startsWith("pay_") ? "payments" : place.value;
  return html`<h1>Operators</h1>
    <nav class="op-nav" aria-label="Operators">${PLACES.map(([id, name]) => html`<a class="button" href=${`#${id}`} aria-current=${shown === id ? "page" : null}>${name}</a>`)}</nav>
    ${problem.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem.value.message}</span></p>`}
    ${place.value.startsWith("pay_") ? html`<${Detail} />` : place.value === "payments" ? html`<${Payments} />` : place.value === "books" ? html`<${Books} />` : html`<${Waiting} />`}
    <${Act} />`;
}

mount(html`<${Page} />`, "operator");

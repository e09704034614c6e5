// The account: what is there, where it came from, and every event that touched it.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "./api.js";
import { AutoTopupSection } from "./auto_topup.js";
import { on } from "./events.js";
import { day, number, plural } from "./money.js";
import { mount } from "./shell.js";
import { SignInPanel } from "./sign_in.js";
import { account, isFree, loadAccount, loadSession, session, start, topupRequest } from "./store.js";
import { Entry, readStatement } from "./statement.js";
import { PlanSection } from "./subscription.js";
import { html, Icon } from "./ui.js";
import { Usage } from "./usage.js";

const query = new URLSearchParams(location.search);
const entries = signal(/** @type {import("../../api.d.ts").EntryOut[] | null} */ (null));
const next = signal(/** @type {string | null} */ (null));
const loading = signal(false);
const problem = signal("");
const filter = signal(query.get("type") ?? "all");
const reference = signal(query.get("reference") ?? "");

/** Only what was asked for last is shown: another filter, or news, may come in between. */
let turn = 0;

/** @param {boolean} more */
async function load(more) {
  const mine = ++turn;
  loading.value = true;
  problem.value = "";
  try {
    const page = await readStatement({ cursor: more ? next.value : null, type: filter.value, reference: reference.value });
    if (mine !== turn) return;
    entries.value = more ? [...(entries.value ?? []), ...page.entries] : page.entries;
    next.value = page.next;
  } catch (error) {
    if (mine !== turn) return;
    problem.value = error instanceof Error ? error.message : "The statement cannot be read.";
    entries.value ??= [];
  }
  loading.value = false;
}

/** @param {string} kind @param {string} about */
function narrow(kind, about) {
  filter.value = kind;
  reference.value = about;
  const params = new URLSearchParams({ ...(kind === "all" ? {} : { type: kind }), ...(about ? { reference: about } : {}) });
  history.replaceState(null, "", `/account${params.size ? `?${params}` : ""}#statement`);
  load(false);
}

/** @type {Record<string, string>} */
const SUBJECTS = { generation: "Images", topup: "Top-ups", plan: "Plan", refund: "Refunds", adjustment: "Adjustments" };

function Balance() {
  const now = account.value;
  if (!now) return html`<div class="card skeleton skeleton-tall" aria-hidden="true"></div>`;
  const { posted, held, available, debt } = now.credits;
  return html`<section class="card balance" aria-labelledby="balance-title">
    <div><h2 id="balance-title" class="label">Available</h2>
      <p class="balance-big num">${number(available)}<span> ${available === 1 ? "image" : "images"}</span></p></div>
    <dl class="balance-parts">
      <div><dt>Posted</dt><dd class="num">${number(posted)}</dd></div>
      <div><dt>Held for pictures in work</dt><dd class="num">${number(held)}</dd></div>
      ${debt > 0 && html`<div class="balance-debt"><dt>Owed after a reversal</dt><dd class="num">${number(debt)}</dd></div>`}
      <div><dt>Plan</dt><dd><a href="/plans">${now.plan_label ?? now.plan}</a></dd></div>
    </dl>
    <div class="actions-row"><button type="button" class="button button-primary" onClick=${() => { topupRequest.value = {}; }}><${Icon} name="plus" />Top up</button></div>
  </section>`;
}

/** @type {Record<string, string>} */
const SOURCES = { payment: "Top-up", pass: "Pass", subscription: "Plan", allowance: "Free pictures today", promotion: "Gift", adjustment: "Adjustment", restored: "Payment came back", overage: "Beyond the plan" };

/** @param {import("../../api.d.ts").LotOut} lot */
function expiry(lot) {
  if (!lot.expires_at) return "never expires";
  const hours = Math.ceil((new Date(lot.expires_at).getTime() - Date.now()) / 3_600_000);
  if (hours <= 0) return "expired";
  return hours <= 36 ? `expires in ${plural(hours, "hour")}` : `expires ${day(lot.expires_at)}`;
}

function Lots() {
  const lots = account.value?.lots ?? [];
  if (!account.value) return null;
  return html`<section aria-labelledby="lots-title"><h2 id="lots-title">Where your credits come from</h2>
    ${lots.length === 0 ? html`<p class="card muted empty">No credits yet. They appear here with their cause, in the order in which they are used.</p>`
      : html`<ol class="lots">${lots.map((lot) => html`<li class=${`card lot ${isFree(lot) ? "lot-free" : ""}`} key=${lot.id}>
        <div class="lot-head"><span class="lot-cause">${SOURCES[lot.source] ?? lot.source}</span><span class="hint">${expiry(lot)}</span></div>
        <meter min="0" max=${lot.granted} value=${lot.left} aria-label=${`${lot.left} of ${lot.granted} left`}></meter>
        <p class="num"><strong>${number(lot.left)}</strong> of ${number(lot.granted)} left${lot.held ? html`, <span class="muted">${number(lot.held)} held</span>` : ""}${/^pay_/.test(lot.reference ?? "") && html` · <a href=${`/topups/${lot.reference}`}>the top-up</a>`}</p></li>`)}</ol>`}
  </section>`;
}

const mail = signal(/** @type {import("../../api.d.ts").MailOut | null} */ (null));

/** What is mailed to whoever has signed in; nothing where no mail is sent, or while it cannot be asked. */
function Mail() {
  useEffect(() => { api("GET", "/v1/mail").then((found) => { mail.value = found; }, () => {}); }, []);
  const now = mail.value;
  if (!now?.sends || !now.address) return null;
  return html`<section class="card who" aria-labelledby="letters-title"><h2 id="letters-title" class="label">Mail</h2>
    <p>Receipts and reminders to <strong>${now.address}</strong> are ${now.optional ? "on" : "off"}.</p>
    <a class="button" href=${new URL(now.url).pathname}>Change it</a></section>`;
}

function Statement() {
  const all = entries.value;
  return html`<section id="statement" aria-labelledby="statement-title" aria-busy=${loading.value}>
    <div class="statement-head"><h2 id="statement-title">Statement</h2>
      <label class="statement-filter"><span class="visually-hidden">Show</span>
        <select class="input" value=${filter.value} onChange=${(/** @type {any} */ event) => narrow(event.target.value, reference.value)}>
          <option value="all">Everything</option>${Object.entries(SUBJECTS).map(([id, name]) => html`<option value=${id}>${name}</option>`)}</select></label></div>
    ${reference.value && html`<p class="note note-calm"><${Icon} name="info" /><span>Only what concerns <span class="mono">${reference.value}</span>. <a href="/account#statement" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); narrow("all", ""); }}>Show everything</a></span></p>`}
    ${problem.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem.value} <a href="#statement" onClick=${() => load(false)}>Try again</a></span></p>`}
    ${all === null ? html`<div class="skeleton skeleton-tall" aria-hidden="true"></div>`
      : all.length === 0 ? html`<div class="card empty"><p>${filter.value === "all" && !reference.value ? "Nothing has happened yet. Every credit that comes, is held, used or given back is written here." : "No entries like that."}</p>
          <p><a class="button" href="/">Draw something</a></p></div>`
      : html`<ol class="entries card">${all.map((entry) => html`<${Entry} key=${entry.position} entry=${entry} onReference=${(/** @type {string} */ id) => narrow("all", id)} />`)}</ol>`}
    ${next.value && html`<button type="button" class="button button-wide more" disabled=${loading.value} onClick=${() => load(true)}>${loading.value ? "Reading" : "Show earlier entries"}</button>`}
  </section>`;
}

function Account() {
  useEffect(() => {
    loadSession();
    start().then(async () => {
      await load(false);
      if (location.hash === "#statement") document.getElementById("statement")?.scrollIntoView();
      on("account", () => load(false));
      on("open", () => load(false));
    });
  }, []);
  return html`<h1>Account</h1>
    <div class="account-top"><${Balance} />${session.value && html`<${SignInPanel} done=${() => { loadAccount(); load(false); }} />`}</div>
    <${Usage} />${session.value?.kind === "person" && html`<${PlanSection} /><${AutoTopupSection} /><${Mail} />`}<${Lots} /><${Statement} />`;
}

mount(html`<${Account} />`, "account");

// The plan that is charged again by itself: subscribe, what it costs to change, cancel, resume, and what is due.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, newKey, Problem } from "./api.js";
import { on } from "./events.js";
import { day, moment, money, number, plural } from "./money.js";
import { account, latest, loadAccount, loadSession, session } from "./store.js";
import { html, Icon, Modal, toast } from "./ui.js";

/** @typedef {import("../../api.d.ts").RecurringOut} Recurring */
/** @typedef {import("../../api.d.ts").PlanOut} Plan */

/** @type {import("@preact/signals").Signal<import("../../api.d.ts").SubscriptionsOut | null>} the answer of GET /v1/subscriptions */
export const subscriptions = signal(null);
const plans = signal(/** @type {Plan[]} */ ([]));
const changing = signal(/** @type {Recurring | null} */ (null));
const shown = signal(/** @type {import("../../api.d.ts").ChangePreviewOut | null} */ (null));
const picked = signal("");
const length = signal(/** @type {"month" | "year"} */ ("month"));
/** Whether the change is to wait for the end of the period, and whether it need not. */
const later = signal(false);
const mayWait = signal(false);
const busy = signal("");
const wrong = signal("");
const arriving = signal("");
/** How long the way back from the payment page is watched, in milliseconds. */
const WATCHED = 60_000;
const EVERY = 1_500;

const asking = latest(subscriptions);

export async function loadSubscriptions() {
  const show = asking();
  show(await api("GET", "/v1/subscriptions"));
}

/** @param {Recurring} one */
const isRunning = (one) => !["opening", "incomplete", "ended", "expired"].includes(one.status);
/** @returns {Recurring[]} */
const running = () => (subscriptions.value?.subscriptions ?? []).filter(isRunning);

/** @param {string} name */
const label = (name) => plans.value.find((plan) => plan.name === name)?.label ?? name;
/** "Pro", or "Pro, by the year" where the length is not the present one. @param {Recurring} one @param {string} plan @param {string | null | undefined} length */
const named = (one, plan, length) => (length && length !== one.length ? `${label(plan)}, by the ${length}` : label(plan));

/**
 * @param {string} name
 * @param {() => Promise<any>} work
 */
async function run(name, work) {
  busy.value = name;
  wrong.value = "";
  try {
    await work();
    await Promise.all([loadSubscriptions(), loadAccount().catch(() => {})]);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    wrong.value = error.message;
  }
  busy.value = "";
}

/** @param {Recurring} one @param {"cancel" | "resume"} what */
const act = (one, what) => run(`${what} ${one.id}`, async () => {
  await api("POST", `/v1/subscriptions/${one.id}/${what}`);
  toast(what === "cancel" ? "Cancelled. What is paid stays until then." : "It goes on.");
});

/** @param {Recurring} one */
const openPortal = (one) => run(`portal ${one.id}`, async () => {
  location.assign((await api("POST", `/v1/subscriptions/${one.id}/portal`)).url);
});

/** What is looked at: a plan, and whether it is to wait for the period. @param {string} plan @param {boolean} [waits] */
function choose(plan, waits = false) {
  const one = changing.value;
  const wanted = length.value;
  picked.value = plan;
  later.value = waits;
  if (!waits) mayWait.value = false;
  shown.value = null;
  changeKey = "";
  return run(`preview ${plan}`, async () => {
    const answer = one && await api("POST", `/v1/subscriptions/${one.id}/preview`, { body: { plan, length: wanted, at_period_end: waits } });
    if (picked.value !== plan || length.value !== wanted || later.value !== waits) return;
    shown.value = answer;
    if (answer?.when === "now") mayWait.value = true;
  });
}

/** @param {"month" | "year"} wanted */
function pickLength(wanted) {
  length.value = wanted;
  picked.value = "";
  shown.value = null;
  later.value = mayWait.value = false;
  wrong.value = "";
}

let changeKey = "";
const confirm = () => run("change", async () => {
  const one = changing.value;
  const preview = shown.value;
  if (!one || !preview) return;
  changeKey ||= newKey();
  const body = { plan: preview.plan, length: preview.length, at_period_end: later.value, prorated_at: preview.prorated_at };
  const after = await api("POST", `/v1/subscriptions/${one.id}/change`, { body, key: changeKey });
  close();
  toast(after.pending_plan ? "The change waits for its payment." : after.next_plan ? `${named(one, after.next_plan, after.next_length)} comes after this period.` : `${named(one, after.plan, after.length)} is yours.`);
});

/** @param {Recurring} one */
function change(one) {
  changeKey = "";
  pickLength(one.length);
  changing.value = one;
}

function close() {
  changing.value = null;
  shown.value = null;
}

/**
 * @param {string} plan
 * @param {string} rail
 * @param {"month" | "year"} wanted
 */
async function subscribe(plan, rail, wanted) {
  await run(`subscribe ${plan}`, async () => {
    const opened = await api("POST", "/v1/subscriptions", { body: { plan, rail, length: wanted }, key: newKey() });
    if (opened.page_url) location.assign(opened.page_url);
  });
}

/** By the month or by the year. @param {{length: "month" | "year", onPick: (length: "month" | "year") => void}} props */
export const Lengths = ({ length: picked_, onPick }) => html`<fieldset class="lengths"><legend class="visually-hidden">Pay for</legend>
    ${/** @type {const} */ (["month", "year"]).map((one) => html`<label class="length"><input type="radio" name="length" value=${one} checked=${picked_ === one}
      onChange=${() => onPick(one)} /><span>${one === "month" ? "By the month" : "By the year"}</span></label>`)}</fieldset>`;

/** What is billed beyond a plan, before it is bought. @param {Plan} plan @param {string} wanted */
export const beyond = (plan, wanted) => plan.overage_limit && wanted === "month" ? html`<p class="hint num" data-beyond>Subscribed by card, it goes on beyond them: ${money({ amount_minor: plan.overage_usd_minor ?? 0, asset: "USD" })} for each image of one credit, at most ${number(plan.overage_limit)} a month, on the next invoice. Paid ahead, it stops there.</p>` : null;

/** Where a plan can be bought by card: a button, or the reason why not. @param {{plan: Plan, length: "month" | "year"}} props */
export function SubscribeButton({ plan, length: wanted }) {
  useEffect(() => { if (!session.value) loadSession(); }, []);
  const rail = subscriptions.value?.rails[0];
  const mine = running()[0];
  if (!subscriptions.value) return html`<span class="hint">Reading what you have.</span>`;
  if (mine) return html`<a class="button" href="/account#plan">${mine.plan === plan.name && mine.length === wanted ? "Manage it" : "Change to it"}</a>`;
  if (!rail) return html`<span class="hint">Cards are closed just now.</span>`;
  if (session.value?.kind !== "person") return html`<a class="button" href="/sign-in">Sign in to subscribe</a>`;
  return html`<button type="button" class="button button-primary" disabled=${busy.value !== ""} onClick=${() => subscribe(plan.name, rail, wanted)}>
    <${Icon} name="card" />${busy.value === `subscribe ${plan.name}` ? "Opening" : "Subscribe by card"}</button>
    ${wrong.value && busy.value === "" && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}`;
}

/** @param {Recurring} one */
function sentence(one) {
  const until = one.period_end ? day(one.period_end) : "";
  switch (one.status) {
    case "past_due": return "The renewal could not be charged.";
    case "unpaid": return "The renewal could not be charged, and is not tried again.";
    case "paused": return "Paused: nothing is charged until you resume it.";
    default:
      if (one.cancels) return `Ends on ${until}. What is paid stays until then.`;
      return one.next_plan ? `Becomes ${named(one, one.next_plan, one.next_length)} on ${until}.` : `Renews on ${until}.`;
  }
}

/** What is missing, and where it is paid. @param {{one: Recurring}} props */
function Due({ one }) {
  const due = one.payment_due;
  if (!due) return null;
  const what = one.pending_plan ? `${named(one, one.pending_plan, one.pending_length)} begins when it is paid.`
    : due.next_attempt_at ? `It is tried again on ${moment(due.next_attempt_at)}.` : "Pay it to go on.";
  return html`<p class="note note-warn" role="status"><${Icon} name="warn" /><span><strong>${one.pending_plan ? "A payment is missing" : "The renewal could not be charged"}</strong>
    ${what} ${due.url && html`<a href=${due.url} rel="noreferrer">Pay now, with this or another card</a>`}</span></p>`;
}

/** @param {{one: Recurring}} props */
function Running({ one }) {
  const scheduled = one.cancels || one.next_plan || one.status === "paused";
  return html`<article class="card subscription" aria-label=${`${one.plan_label}, by card`}>
    <div class="lot-head"><h3>${one.plan_label}${one.length === "year" && html` <span class="muted">by the year</span>`}</h3><span class=${`tag ${one.status === "active" || one.status === "trialing" ? "tag-good" : "tag-warn"}`}>${one.status.replace("_", " ")}</span></div>
    ${one.status === "past_due" && one.payment_due ? "" : html`<p>${sentence(one)}</p>`}
    <${Due} one=${one} />
    <div class="actions-row">
      ${!one.pending_plan && html`<button type="button" class="button" onClick=${() => change(one)}>Change plan</button>`}
      <button type="button" class="button" disabled=${busy.value !== ""} onClick=${() => openPortal(one)}>Card and invoices</button>
      ${scheduled ? html`<button type="button" class="button button-primary" disabled=${busy.value !== ""} onClick=${() => act(one, "resume")}>${one.status === "paused" ? "Resume" : `Keep ${one.plan_label}`}</button>` : ""}
      ${!one.cancels && html`<button type="button" class="link-button" disabled=${busy.value !== ""} onClick=${() => act(one, "cancel")}>Cancel at the end of the period</button>`}
    </div></article>`;
}

function Preview() {
  const preview = shown.value;
  if (!preview) return null;
  const now = preview.when === "now";
  return html`<dl class="preview">
      <div><dt>Now</dt><dd class="num">${money(preview.due_now)}</dd></div>
      <div><dt>From ${day(preview.next_at)}</dt><dd class="num">${money(preview.due_next)} a ${preview.length}</dd></div>
      ${preview.credits_now > 0 && html`<div><dt>At once</dt><dd class="num">${plural(preview.credits_now, "image")} more</dd></div>`}
    </dl>
    ${mayWait.value && html`<label class="wait"><input type="checkbox" checked=${later.value} onChange=${() => choose(preview.plan, !later.value)} /> Not before this period ends</label>`}
    ${picked.value && beyond(plans.value.find((plan) => plan.name === preview.plan) ?? /** @type {Plan} */ ({}), preview.length)}
    <p class="hint">${now ? `${label(preview.plan)} begins when this is paid, with the card on file.` : `Your present plan stays until ${day(preview.next_at)}.`}</p>
    <button type="button" class="button button-primary button-wide" disabled=${busy.value !== ""} onClick=${confirm}>${busy.value === "change" ? "Changing" : now ? `Pay ${money(preview.due_now)} and change` : "Change then"}</button>`;
}

function Change() {
  const one = changing.value;
  if (!one) return null;
  const wanted = length.value;
  const price = (/** @type {Plan} */ plan) => (wanted === "year" ? plan.year_usd_minor ?? 0 : plan.price_usd_minor);
  const others = plans.value.filter((plan) => plan.price_usd_minor > 0 && price(plan) > 0 && (plan.name !== one.plan || wanted !== one.length));
  return html`<${Modal} title="Change your plan" onClose=${close}>
    <${Lengths} length=${wanted} onPick=${pickLength} />
    <fieldset class="choices"><legend class="visually-hidden">Which plan instead of ${one.plan_label}</legend>
      ${others.map((plan) => html`<label class="choice" key=${plan.name}><input type="radio" name="plan" value=${plan.name} checked=${picked.value === plan.name} onChange=${() => choose(plan.name)} />
        <span><strong>${plan.label}</strong> <span class="num">${money({ amount_minor: price(plan), asset: "USD" })} a ${wanted}</span></span></label>`)}</fieldset>
    <div aria-live="polite" aria-busy=${busy.value.startsWith("preview")}>
      ${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}
      ${busy.value.startsWith("preview") ? html`<div class="skeleton" aria-hidden="true"></div>` : html`<${Preview} />`}</div>
  </${Modal}>`;
}

/** The way back from the payment page grants nothing: it waits for what the payment did. @param {string} id */
async function arrive(id) {
  arriving.value = "waiting";
  const end = Date.now() + WATCHED;
  while (Date.now() < end) {
    const one = await api("GET", `/v1/subscriptions/${id}`).catch(() => null);
    if (one && isRunning(one)) {
      arriving.value = "";
      await Promise.all([loadSubscriptions(), loadAccount().catch(() => {})]);
      toast(`${one.plan_label} is yours.`);
      return;
    }
    if (one?.status === "expired") break;
    await new Promise((resolve) => { setTimeout(resolve, EVERY); });
  }
  arriving.value = "nothing";
}

export function PlanSection() {
  useEffect(() => {
    api("GET", "/v1/plans").then((answer) => { plans.value = answer.plans; }, () => {});
    loadSubscriptions().catch(() => {});
    on("account", () => loadSubscriptions().catch(() => {}));
    const query = new URLSearchParams(location.search);
    const id = query.get("subscription");
    if (id && /^subscr_[0-9a-z]{26}$/.test(id)) {
      history.replaceState(null, "", "/account");
      arrive(id);
    }
  }, []);
  const mine = running();
  if (!account.value || !subscriptions.value) return null;
  return html`<section id="plan" aria-labelledby="plan-title"><h2 id="plan-title">Your plan</h2>
    ${arriving.value === "waiting" && html`<p class="note note-calm" role="status"><${Icon} name="clock" /><span>Waiting for your payment. This page shows when it has arrived; nothing is lost if you leave.</span></p>`}
    ${arriving.value === "nothing" && html`<p class="note note-calm" role="status"><${Icon} name="info" /><span>No payment has arrived, and nothing was charged that you do not see here. <a href="/plans">Choose a plan</a></span></p>`}
    ${mine.length > 1 && html`<p class="note note-warn" role="status"><${Icon} name="warn" /><span><strong>You pay for two plans</strong>Both bring their images, and the larger one counts. Cancel the one that you do not want.</span></p>`}
    ${wrong.value && !changing.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}
    ${mine.length === 0 && arriving.value ? "" : mine.length === 0 ? html`<p class="card muted empty">No plan. <a class="button" href="/plans">See the plans</a></p>`
      : mine.map((one) => html`<${Running} key=${one.id} one=${one} />`)}
    <${Change} /></section>`;
}

// Plans, packs and passes with live prices; a plan is paid ahead by the month or the year.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { allowance, buyPack, buyPlan, catalogue, isPrepaid, loadCatalogue, mine, otherPrices } from "./catalogue.js";
import { on, poll } from "./events.js";
import { day, money } from "./money.js";
import { mount } from "./shell.js";
import { account, loadRails, loadSession, online, rails, session, start, topupRequest } from "./store.js";
import { beyond, Lengths, loadSubscriptions, SubscribeButton, subscriptions } from "./subscription.js";
import { html, Icon } from "./ui.js";

const failed = signal(false);
const length = signal(/** @type {"month" | "year"} */ ("month"));

/** @param {number} cents */
const dollars = (cents) => money({ amount_minor: cents, asset: "USD" }).replace(/\.00$/, "");

const SOON_MS = 3 * 86_400_000;
/** @param {import("../../api.d.ts").SubscriptionOut} one */
const endsSoon = (one) => new Date(one.lasts_until).getTime() - Date.now() < SOON_MS;

/** Where a reminder leads: `#pay-pro` opens the next period of Pro. */
function followReminder() {
  const wanted = catalogue.value?.plans.find((plan) => location.hash === `#pay-${plan.name}`);
  if (!wanted || session.value?.kind !== "person" || topupRequest.value) return;
  history.replaceState(null, "", location.pathname);
  topupRequest.value = { buy: buyPlan(wanted, "month"), onPaid: loadCatalogue };
}

/** @param {{plan: import("../../api.d.ts").PlanOut}} props */
function Ahead({ plan }) {
  const buy = buyPlan(plan, length.value);
  const paid = mine(plan.name);
  const words = paid ? `Add a ${length.value}` : `Pay a ${length.value} ahead`;
  const has = account.value?.subscriptions ?? [];
  const renews = has.some((one) => !isPrepaid(one) && !one.cancels);
  if (session.value?.kind !== "person") return subscriptions.value?.rails.length ? html`<${SubscribeButton} plan=${plan} length=${length.value} />` : html`<a class="button" href="/sign-in">Sign in to buy it</a>`;
  if (renews) return html`<${SubscribeButton} plan=${plan} length=${length.value} />
    ${paid && html`<p class="hint">It renews by itself. Cancel it first, and you can pay ahead from its end on.</p>`}`;
  if (!buy.usd_minor) return html`<p class="hint">Not sold by the year.</p>`;
  return html`${!has.some(isPrepaid) && html`<${SubscribeButton} plan=${plan} length=${length.value} />`}<button type="button" class="button" aria-label=${`${words}: ${plan.label}`}
    onClick=${() => { topupRequest.value = { buy, onPaid: loadCatalogue }; }}>${words}</button>`;
}

/** @param {{plan: import("../../api.d.ts").PlanOut}} props */
function Plan({ plan }) {
  const paid = mine(plan.name);
  const current = account.value?.plan === plan.name;
  const costs = plan.price_usd_minor > 0;
  const yearly = length.value === "year" ? plan.year_usd_minor ?? 0 : 0;
  const prices = yearly ? plan.year_prices : plan.prices;
  return html`<li class=${`card plan ${plan.priority && plan.period === "month" ? "plan-best" : ""}`} data-plan=${plan.name}>
    <h2>${plan.label}</h2>
    <p class="plan-price num">${dollars(yearly || plan.price_usd_minor)}<span>${costs ? (yearly ? " a year" : " a month") : " for ever"}</span></p>
    ${costs && prices.length > 0 && html`<p class="hint num plan-live">or ${otherPrices(prices)}</p>`}
    <p>${allowance(plan)}</p>
    ${beyond(plan, length.value)}
    <p class="hint">${plan.priority ? "First in line when it is busy." : costs ? "For a sketch most evenings." : "For trying, and for Sundays."}</p>
    ${current && html`<span class="tag tag-good"><${Icon} name="check" />Your plan</span>`}
    ${paid && isPrepaid(paid) && endsSoon(paid) && html`<p class="note note-warn" role="status"><${Icon} name="clock" /><span>It ends on ${day(paid.lasts_until)}. Nothing renews by itself: pay the next period to go on.</span></p>`}
    ${paid && html`<p class="plan-until">${new Date(paid.period_start) > new Date() ? `Paid ahead from ${day(paid.period_start)} until ${day(paid.lasts_until)}.` : `Paid until ${day(paid.lasts_until)}.`}</p>`}
    ${costs ? html`<${Ahead} plan=${plan} />` : !current && html`<a class="button" href="/">Start drawing</a>`}
  </li>`;
}

/** @param {{packs: import("../../api.d.ts").PackOut[]}} props */
const Packs = ({ packs }) => html`<ul>${packs.map((pack) => {
  const buy = buyPack(pack);
  return html`<li key=${pack.name}><button type="button" class="pack" data-pack=${pack.name} onClick=${() => { topupRequest.value = { buy }; }}>
    <strong class="num">${buy.title}</strong>${pack.kind === "pass" && html`<span>${buy.detail.replace(" of the payment", "")}</span>`}
    <span class="num">${money({ amount_minor: pack.price_usd_minor, asset: "USD" })}</span>
    ${pack.prices.length > 0 && html`<span class="hint num">${otherPrices(pack.prices)}</span>`}</button></li>`;
})}</ul>`;

/** What tax is added to, in the words of its button; nothing if to nothing. */
const taxed = () => rails.value?.rails.filter((rail) => rail.tax_on_top).map((rail) => rail.label.toLowerCase()).join(" or ");

function Plans() {
  useEffect(() => {
    const read = () => loadCatalogue().then(() => { failed.value = false; }, () => { failed.value = !catalogue.value; });
    const known = read();
    loadRails().catch(() => {});
    start().then(() => Promise.all([loadSession(), loadSubscriptions().catch(() => {})])).then(() => known).then(followReminder).catch(() => {});
    const off = [on("open", read), poll(() => online.value && document.visibilityState === "visible" && read(), { quick: 30_000, slow: 30_000 })];
    return () => { for (const stop of off) stop(); };
  }, []);
  if (failed.value) return html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>The list of plans cannot be read just now.</span></p>`;
  const known = catalogue.value;
  if (!known) return html`<div class="skeleton skeleton-tall"></div>`;
  return html`<${Lengths} length=${length.value} onPick=${(/** @type {"month" | "year"} */ one) => { length.value = one; }} />
    <ul class="plans">${known.plans.map((plan) => html`<${Plan} key=${plan.name} plan=${plan} />`)}</ul>
    <p class="muted">What is paid ahead by card, sats or USDT ends by itself. Paid again before its end, it is longer by as much; a larger plan begins at once, and what you had stays.${taxed() && ` Where you pay by ${taxed()}, tax is added where it is due.`}</p>
    <section class="packs" aria-labelledby="packs-title"><h2 id="packs-title">Or just some images</h2>
      <p class="muted">No subscription; use them when you like.</p>
      <${Packs} packs=${known.packs.filter((pack) => pack.kind !== "pass")} /></section>
    <section class="packs" aria-labelledby="passes-title"><h2 id="passes-title">Or an evening of sketching</h2>
      <p class="muted">Many images for little, for a few hours from the payment on.</p>
      <${Packs} packs=${known.packs.filter((pack) => pack.kind === "pass")} /></section>`;
}

mount(html`<${Plans} />`, "plans");

// Plans and packs, from the server's own list.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "./api.js";
import { money, number, plural } from "./money.js";
import { mount } from "./shell.js";
import { account, loadRails, rails, start, topupRequest } from "./store.js";
import { loadSubscriptions, SubscribeButton } from "./subscription.js";
import { html, Icon } from "./ui.js";

const plans = signal(/** @type {import("../../api.d.ts").PlanOut[] | null} */ (null));
const failed = signal(false);

/** @param {import("../../api.d.ts").PlanOut} plan */
function allowance(plan) {
  return `${number(plan.credits)} images a ${plan.period}`;
}

/** @param {{plan: import("../../api.d.ts").PlanOut}} props */
function Plan({ plan }) {
  const mine = account.value?.plan === plan.name;
  const costs = plan.price_usd_minor > 0;
  const price = money({ amount_minor: plan.price_usd_minor, asset: "USD" }).replace(/\.00$/, "");
  return html`<li class=${`card plan ${plan.priority && plan.period === "month" ? "plan-best" : ""}`}>
    <h2>${plan.label}</h2>
    <p class="plan-price num">${price}<span>${costs ? " a month" : " for ever"}</span></p>
    <p>${allowance(plan)}${costs && plan.period === "day" ? ", fair use" : ""}</p>
    <p class="hint">${plan.priority ? "First in line when it is busy." : costs ? "For a sketch most evenings." : "For trying, and for Sundays."}</p>
    ${mine ? html`<span class="tag tag-good"><${Icon} name="check" />Your plan</span>`
      : !costs ? html`<a class="button" href="/">Start drawing</a>` : html`<${SubscribeButton} plan=${plan} />`}
  </li>`;
}

function Plans() {
  useEffect(() => {
    api("GET", "/v1/plans").then((answer) => { plans.value = answer.plans; }, () => { failed.value = true; });
    loadRails().catch(() => {});
    start().then(() => loadSubscriptions()).catch(() => {});
  }, []);
  if (failed.value) return html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>The list of plans cannot be read just now.</span></p>`;
  if (!plans.value) return html`<div class="skeleton skeleton-tall"></div>`;
  return html`<ul class="plans">${plans.value.map((plan) => html`<${Plan} key=${plan.name} plan=${plan} />`)}</ul>
    <section class="packs" aria-labelledby="packs-title"><h2 id="packs-title">Or just some images</h2>
      <p class="muted">No subscription; use them when you like.</p>
      <ul>${(rails.value?.packs ?? []).map((pack) => html`<li><button type="button" class="pack" onClick=${() => { topupRequest.value = { credits: pack.credits }; }}>
        <strong class="num">${plural(pack.credits, "image")}</strong><span class="num">${money({ amount_minor: pack.usd_minor, asset: "USD" })}</span></button></li>`)}</ul></section>`;
}

mount(html`<${Plans} />`, "plans");

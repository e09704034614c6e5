// Plans and packs, from the server's own list.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "./api.js";
import { money, number, plural } from "./money.js";
import { mount } from "./shell.js";
import { account, loadRails, rails, topupRequest } from "./store.js";
import { html, Icon } from "./ui.js";

const plans = signal(/** @type {any[] | null} */ (null));
const failed = signal(false);

/** @param {any} plan */
function allowance(plan) {
  const each = { day: "a day", month: "a month", daily: "a day", monthly: "a month" }[/** @type {"day"} */ (plan.period)] ?? "";
  return `${number(plan.credits)} images ${each}`;
}

/** @param {{plan: any}} props */
function Plan({ plan }) {
  const now = account.value?.plan;
  const mine = (typeof now === "string" ? now : now?.name) === plan.id;
  const price = plan.price?.amount_minor ? money(plan.price).replace(/\.00$/, "") : "$0";
  return html`<li class=${`card plan ${plan.id === "pro" ? "plan-best" : ""}`}>
    <h2>${plan.name}</h2>
    <p class="plan-price num">${price}<span>${plan.price?.amount_minor ? " a month" : " for ever"}</span></p>
    <p>${allowance(plan)}${plan.fair_use ? ", fair use" : ""}</p>
    <p class="hint">${plan.description ?? ""}</p>
    ${mine ? html`<span class="tag tag-good"><${Icon} name="check" />Your plan</span>`
      : plan.checkout_url ? html`<a class="button button-primary" href=${plan.checkout_url}>Choose ${plan.name}</a>`
      : plan.id === "free" ? html`<a class="button" href="/">Start drawing</a>` : html`<span class="hint">Opens soon; packs work today.</span>`}
  </li>`;
}

function Plans() {
  useEffect(() => {
    api("GET", "/v1/plans").then((answer) => { plans.value = answer.plans; }, () => { failed.value = true; });
    loadRails().catch(() => {});
  }, []);
  if (failed.value) return html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>The list of plans cannot be read just now.</span></p>`;
  if (!plans.value) return html`<div class="skeleton skeleton-tall"></div>`;
  return html`<ul class="plans">${plans.value.map((plan) => html`<${Plan} key=${plan.id} plan=${plan} />`)}</ul>
    <section class="packs" aria-labelledby="packs-title"><h2 id="packs-title">Or just some images</h2>
      <p class="muted">No subscription; use them when you like.</p>
      <ul>${(rails.value?.packs ?? []).map((/** @type {any} */ pack) => html`<li><button type="button" class="pack" onClick=${() => { topupRequest.value = { credits: pack.credits }; }}>
        <strong class="num">${plural(pack.credits, "image")}</strong><span class="num">${money({ amount_minor: pack.usd_minor, asset: "USD" })}</span></button></li>`)}</ul></section>`;
}

mount(html`<${Plans} />`, "plans");

// How much of the plan's images of this period, or of today's free ones, is used.
import { day, money, number } from "./money.js";
import { account, topupRequest } from "./store.js";
import { html, Icon } from "./ui.js";

/** Percent from which somebody is told; the letter says the same. */
const NEARLY = 80;

/** @param {import("../../api.d.ts").UsageOut} usage */
function percentOf(usage) {
  return Math.floor((usage.used ?? 0) * 100 / (usage.granted ?? 1));
}

/** @param {number} minor */
const cents = (minor) => money({ amount_minor: minor, asset: "USD" });

/** What was used beyond the plan, and what it costs. @param {{usage: import("../../api.d.ts").UsageOut}} props */
function Beyond({ usage }) {
  const owed = usage.overage_owed ?? 0;
  if (!owed) return null;
  const each = usage.overage_usd_minor ?? 0;
  return html`<p class="num" id="beyond"><strong>${number(owed)}</strong> beyond the plan${each > 0 && html`: ${cents(owed * each)} <span class="muted">with your next invoice</span>`}</p>`;
}

/** @param {{usage: import("../../api.d.ts").UsageOut, daily: boolean}} props */
function Notice({ usage, daily }) {
  const percent = percentOf(usage);
  if (percent < NEARLY) return null;
  const all = percent >= 100;
  if (usage.overage_limit) {
    const left = usage.overage_limit - Math.max(usage.overage ?? 0, usage.overage_owed ?? 0);
    return html`<p class="note note-warn" role="status"><${Icon} name="warn" /><span><strong>${all ? "All of them are used" : `${percent} % of them are used`}</strong>
      ${left > 0 ? `${all ? "From now on" : "Then"} each image beyond them costs ${cents(usage.overage_usd_minor ?? 0)} a credit, at most ${number(left)} more, billed with your next invoice.` : "As many as may be billed beyond them are used, too: nothing more is charged."}
      ${" "}What you have bought besides goes first: <button type="button" class="link-button" onClick=${() => { topupRequest.value = {}; }}>top up</button> or <a href="/plans">see the plans</a>.</span></p>`;
  }
  const back = daily ? "New ones come at midnight UTC." : usage.ends_at ? `New ones come on ${day(usage.ends_at)}.` : "";
  return html`<p class="note note-warn" role="status"><${Icon} name="warn" /><span><strong>${all ? "All of them are used" : `${percent} % of them are used`}</strong>
    ${back} ${all ? "What you have bought besides is used now." : "Nothing is charged when they are used up."}
    ${" "}<button type="button" class="link-button" onClick=${() => { topupRequest.value = {}; }}>Top up</button> or <a href="/plans">see the plans</a></span></p>`;
}

export function Usage() {
  const usage = account.value?.usage;
  if (!usage?.period || !usage.granted) return usage?.overage_owed ? html`<section id="usage" class="usage" aria-labelledby="usage-title"><h2 id="usage-title">Used beyond your plan</h2><div class="card usage-card"><${Beyond} usage=${usage} /></div></section>` : null;
  const daily = usage.period.length === 10;
  const used = usage.used ?? 0;
  return html`<section id="usage" class="usage" aria-labelledby="usage-title"><h2 id="usage-title">${daily ? "Used today" : "Used in this period"}</h2>
    <div class="card usage-card">
      <p class="num"><strong>${number(used)}</strong> of ${number(usage.granted)} images${!daily && usage.ends_at && html`, <span class="muted">until ${day(usage.ends_at)}</span>`}</p>
      <meter min="0" max=${usage.granted} value=${Math.min(used, usage.granted)} aria-label=${`${used} of ${usage.granted} images used`}></meter>
      <${Beyond} usage=${usage} />
      <${Notice} usage=${usage} daily=${daily} />
    </div></section>`;
}

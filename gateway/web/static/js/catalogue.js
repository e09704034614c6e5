// Plans, packs and passes with today's prices, and what a person may buy of them.
import { signal } from "@preact/signals";
import { api } from "./api.js";
import { money, number, plural } from "./money.js";
import { account } from "./store.js";

/** @typedef {import("../../api.d.ts").PlanOut} Plan */
/** @typedef {import("../../api.d.ts").PackOut} Pack */
/** @typedef {import("../../api.d.ts").PriceOut} Price */
/**
 * What a top-up is to buy, if not plain credits.
 * @typedef {{body: {pack: string} | {plan: string, length: "month" | "year"}, title: string, detail: string, usd_minor: number, prices: Price[] | null}} Buy
 */

/** @type {import("@preact/signals").Signal<import("../../api.d.ts").PlansOut | null>} the answer of GET /v1/plans */
export const catalogue = signal(null);

export async function loadCatalogue() {
  catalogue.value = await api("GET", "/v1/plans");
}

const HOUR = 3_600;
/** @param {number} seconds */
const lasting = (seconds) => (seconds % HOUR === 0 ? plural(seconds / HOUR, "hour") : plural(Math.round(seconds / 60), "minute"));

/** @param {Plan} plan */
export const allowance = (plan) => `${number(plan.credits)} images a ${plan.period}${plan.price_usd_minor > 0 && plan.period === "day" ? ", fair use" : ""}`;

/** @param {Pack} pack @returns {Buy} */
export const buyPack = (pack) => ({
  body: { pack: pack.name },
  title: pack.kind === "pass" ? pack.label : plural(pack.credits, "image"),
  detail: pack.lasts_seconds ? `${plural(pack.credits, "image")} within ${lasting(pack.lasts_seconds)} of the payment` : "Yours until you use them.",
  usd_minor: pack.price_usd_minor,
  prices: pack.prices,
});

/** @param {Plan} plan @param {"month" | "year"} length @returns {Buy} */
export const buyPlan = (plan, length) => ({
  body: { plan: plan.name, length },
  title: `${plan.label} for a ${length}`,
  detail: `${allowance(plan)}. Paid once: nothing renews by itself.`,
  usd_minor: length === "year" ? plan.year_usd_minor ?? 0 : plan.price_usd_minor,
  prices: length === "year" ? plan.year_prices : plan.prices,
});

/** What a top-up was opened for, to buy it again. @param {import("../../api.d.ts").BuysOut} purchase @returns {Buy | null} */
export function buyAgain(purchase) {
  const known = catalogue.value;
  if (purchase.kind === "plan") {
    const plan = known?.plans.find((one) => one.name === purchase.name);
    const length = purchase.months === 12 ? "year" : "month";
    if (plan) return buyPlan(plan, length);
    return { body: { plan: purchase.name, length }, title: `${purchase.label} for a ${length}`, detail: "", usd_minor: purchase.price_usd_minor, prices: null };
  }
  const pack = known?.packs.find((one) => one.name === purchase.name);
  return pack ? buyPack(pack) : { body: { pack: purchase.name }, title: purchase.label, detail: "", usd_minor: purchase.price_usd_minor, prices: null };
}

/** The same in a few words, under the sum. @param {import("../../api.d.ts").TopupOut} topup */
export function forWhat(topup) {
  const buys = topup.purchase;
  if (!buys) return `for ${plural(topup.credits, "image")}`;
  if (buys.kind === "plan") return `for ${buys.label}, ${buys.months === 12 ? "a year" : "a month"}`;
  return buys.lasts_seconds ? `for ${plural(topup.credits, "image")} within ${lasting(buys.lasts_seconds)}` : `for ${plural(topup.credits, "image")}`;
}

/** "20,480 sats or 20.00 USDT". @param {Price[]} prices */
export function otherPrices(prices) {
  const found = ["BTC", "USDT"].flatMap((asset) => prices.filter((price) => price.asset === asset).slice(0, 1));
  return found.map((price) => money(price)).join(" or ");
}

/** The subscription that brings this plan. @param {string} plan */
export const mine = (plan) => (account.value?.subscriptions ?? []).find((one) => one.plan === plan);
/** Whether its periods are paid ahead, one by one. @param {import("../../api.d.ts").SubscriptionOut} one */
export const isPrepaid = (one) => one.subscription_id.startsWith("prepaid_");

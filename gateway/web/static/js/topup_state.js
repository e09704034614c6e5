// What a top-up's state means to the person who pays. Pure: from the API's answer to words and actions.
import { moment, money, plural, scales } from "./money.js";

/**
 * @typedef {{tone: "" | "good" | "warn" | "bad" | "calm", title: string, text: string, pay: boolean, busy?: boolean,
 *   again?: "quote" | "rails", code?: string}} View
 */

/** @type {Record<string, string>} by decline code, as card networks name them */
const DECLINES = {
  insufficient_funds: "The card has not enough funds.",
  expired_card: "The card has expired.",
  incorrect_cvc: "The security code was wrong.",
  processing_error: "The bank had a technical problem. Trying again usually works.",
  authentication_required: "The bank wanted a confirmation that did not happen.",
  authentication_failed: "The bank's confirmation did not succeed.",
  lost_card: "The bank refused this card.",
  stolen_card: "The bank refused this card.",
  card_declined: "The bank declined the card without saying why.",
  generic_decline: "The bank declined the card without saying why.",
};

/** @param {{amount_minor: number, asset: string}[]} parts @param {string} asset */
const sumOf = (parts, asset) =>
  parts.filter((part) => part.asset === asset).reduce((sum, part) => sum + BigInt(part.amount_minor), 0n);

/** Money that is there or on its way, of the asset asked for. @param {import("../../api.d.ts").TopupOut} topup */
export function arrived(topup) {
  const good = (topup.received ?? []).filter((one) => ["seen", "held", "settled", "short"].includes(one.state));
  return sumOf(good, topup.amount_due.asset);
}

/** The same in words. @param {import("../../api.d.ts").TopupOut} topup */
const got = (topup) => money({ amount_minor: Number(arrived(topup)), asset: topup.amount_due.asset });

/** What is still to send, never below nothing. @param {import("../../api.d.ts").TopupOut} topup */
export const missing = (topup) => topup.amount_missing;

/** Money of another asset that is on its way or waits for a person. @param {import("../../api.d.ts").TopupOut} topup */
function stray(topup) {
  return (topup.received ?? []).find((one) => one.asset !== topup.amount_due.asset && ["seen", "mismatched"].includes(one.state));
}

/** A name that people can read: of a long id of the chain its ends. @param {string} asset */
const assetName = (asset) => asset === "UNREADABLE" ? "something that cannot be read"
  : asset.length > 12 ? `another asset (${asset.slice(0, 4)}…${asset.slice(-4)})` : asset;

/** What came, also of a foreign asset. @param {{amount_minor: number, asset: string}} sum */
const came = (sum) => capital(sum.asset in scales ? money(sum) : assetName(sum.asset));

/** @param {string} text */
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {import("../../api.d.ts").TopupOut} topup @param {{amount_minor: number, asset: string}} other @returns {View} */
const otherArriving = (topup, other) => ({ tone: "warn", title: "Another asset is arriving", pay: false, busy: true, again: "rails",
  text: `${came(other)} is on its way, and ${topup.amount_due.asset} was asked for. It cannot be credited by itself: a person looks at it, and it stays yours until it is credited or sent back.` });

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function waiting(topup) {
  const { kind } = topup.instructions ?? {};
  if (kind === "redirect") return { tone: "calm", title: "Confirming", text: "Waiting for the card's bank. This page changes by itself when the payment is in.", pay: true, busy: true };
  return { tone: "", title: `Pay ${money(topup.amount_due)}`, text: "", pay: true };
}

/** How far into the chain all of it is: "1 of 2 blocks"; nothing where nobody has counted. @param {import("../../api.d.ts").TopupOut} topup */
function depth(topup) {
  const counts = (topup.received ?? []).filter((one) => one.state === "seen" && typeof one.confirmations === "number").map((one) => Number(one.confirmations));
  const needed = /** @type {any} */ (topup.instructions)?.confirmations_needed;
  return counts.length && needed ? `: ${Math.min(...counts)} of ${needed} blocks so far, one a minute` : ": about two minutes";
}

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function seen(topup) {
  const sum = got(topup);
  if (topup.quote.expired) return { tone: "warn", title: "Arrived late", pay: false, busy: true,
    text: `${sum} came after the quote had ended. It is not lost: it is credited as soon as it is final, within the hour at the quote's price, later at the price of that moment.` };
  return { tone: "calm", title: "Payment received", busy: true, pay: false,
    text: `${sum} ${topup.instructions?.kind === "address" ? `is on its way into the chain${depth(topup)}.` : "is being confirmed."} You can close this; it is credited either way.` };
}

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function underpaid(topup) {
  const other = stray(topup);
  if (other && arrived(topup) === 0n) return otherArriving(topup, other);
  const sum = `Got ${got(topup)} of ${money(topup.amount_due)}.`;
  const buys = topup.purchase;
  if (buys && buys.granted === 0) {
    if (topup.credited > 0) return { tone: "warn", title: "It became credits", pay: false, again: "quote",
      text: `${sum} That is less than the price, and the rest did not come in time: it is ${plural(topup.credited, "credit")} now. Nothing is lost.` };
    const until = buys.rest_awaited_until ? ` until ${moment(buys.rest_awaited_until)}` : "";
    return { tone: "warn", title: `Send ${money(missing(topup))} more`, pay: true,
      text: `${sum} ${buys.label} is yours when the rest is here. Without it, what arrived waits${until} and then becomes credits.` };
  }
  if (topup.quote.expired) return { tone: "warn", title: "This quote has ended", pay: false, again: "quote",
    text: `${sum} What arrived is credited in proportion; what still comes is credited too.` };
  return { tone: "warn", title: `Send ${money(missing(topup))} more`, pay: true,
    text: `${sum} The code below asks for exactly the rest. Without it, what arrived is credited in proportion.` };
}

/** Whether all that it bought went back to its payer. @param {import("../../api.d.ts").TopupOut} topup */
export const isRefunded = (topup) => topup.credited === 0 && (topup.refunds ?? []).some((one) => one.state === "sent");

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function paid(topup) {
  if (isRefunded(topup)) return { tone: "calm", title: "Refunded", text: "What was not used of this top-up went back to you.", pay: false };
  const over = arrived(topup) - BigInt(topup.amount_due.amount_minor);
  const extra = over > 0n ? ` You sent ${money({ amount_minor: Number(over), asset: topup.amount_due.asset })} more than asked; the surplus is credited too.` : "";
  const late = topup.quote.expired ? " It came after the quote had ended and is credited all the same." : "";
  return { tone: "good", title: "Paid", text: `Thank you.${extra}${late}`, pay: false };
}

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function expired(topup) {
  if (topup.instructions?.kind === "redirect") return { tone: "", title: "The card page has closed", text: "Nothing was charged.", pay: false, again: "quote" };
  const watch = topup.instructions?.kind === "address" ? " Already sent it? The address is watched for ever, and what arrives is credited." : " Nothing was taken.";
  return { tone: "", title: "This quote has ended", text: `Prices move, so a quote holds for a while only.${watch}`, pay: false, again: "quote" };
}

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function suspense(topup) {
  const other = stray(topup);
  if ((topup.refunds ?? []).some((one) => one.state === "requested")) return { tone: "calm", title: "On its way back", text: "This money could not be credited. It is being sent back to you.", pay: false };
  return other
    ? { tone: "warn", title: `That was ${assetName(other.asset)}, not ${topup.amount_due.asset}`, pay: false, again: "rails", text: `${came(other)} arrived safely but cannot be credited by itself. A person looks at it, and it stays yours until it is credited or sent back.` }
    : { tone: "warn", title: "Kept aside", pay: false, again: "rails", text: "The money arrived, but is worth less than one credit or does not fit this payment. It stays on record for you, and a person looks at it." };
}

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function reversed(topup) {
  if ((topup.refunds ?? []).some((one) => one.state === "sent")) return { tone: "calm", title: "Sent back", text: "This money could not be credited, so it went back to you.", pay: false };
  if (onChain(topup)) return { tone: "warn", title: "Waiting again after a reorganisation", busy: true, pay: false,
    text: "The chain took back the block with this payment, so its credits are withdrawn for now. They come back by themselves once it is confirmed again. Only if your wallet says that it failed, pay again." };
  return { tone: "bad", title: "The payment was taken back", pay: false, again: "rails", text: "The money returned to its sender, so its credits were withdrawn. Your statement shows the entry." };
}

/** Whether blocks decide about its money. @param {import("../../api.d.ts").TopupOut} topup */
const onChain = (topup) => topup.instructions?.kind === "address";

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
export function view(topup) {
  const shown = stateView(topup);
  const other = stray(topup);
  // Right and wrong asset in one payment: both are said.
  return other && arrived(topup) > 0n ? { ...shown, text: `${shown.text} ${came(other)} came as well: a person looks at it, and it stays yours.` } : shown;
}

/** @param {import("../../api.d.ts").TopupOut} topup @returns {View} */
function stateView(topup) {
  switch (topup.state) {
    case "opening": return { tone: "", title: "Opening", text: "Opening the payment request.", pay: false, busy: true };
    case "waiting": return waiting(topup);
    case "seen": return seen(topup);
    case "underpaid": return underpaid(topup);
    case "paid": return paid(topup);
    case "expired": return expired(topup);
    case "declined": return { tone: "bad", title: "The payment was declined", pay: false, again: "rails", code: topup.decline_code ?? "",
      text: `${DECLINES[topup.decline_code ?? ""] ?? "The payment was refused."} Nothing was charged.` };
    case "suspense": return suspense(topup);
    case "unpriced": return { tone: "warn", title: "Received, waiting for a price", pay: false, busy: true, text: "Your payment is here. The price feeds are silent just now; as soon as one answers, it is credited by itself." };
    case "reversed": return reversed(topup);
    case "disputed": return { tone: "bad", title: "This payment is disputed", pay: false, text: "Your bank has asked for the money back. Its credits are withdrawn until that is settled; if it is settled for the payment, they return." };
    default: return { tone: "", title: String(topup.state), text: "", pay: false };
  }
}

/** The state will not change by waiting. @param {import("../../api.d.ts").TopupOut} topup */
export const settled = (topup) => ["paid", "declined", "disputed"].includes(topup.state) || (topup.state === "reversed" && !onChain(topup));

/**
 * The payment URI with the amount that is still missing.
 * @param {import("../../api.d.ts").TopupOut} topup
 * @param {string} amount plain decimal
 */
export function payUri(topup, amount) {
  const { uri, kind } = topup.instructions ?? {};
  if (!uri || kind !== "address" || topup.state !== "underpaid") return uri ?? null;
  return uri.replace(/([?&]amount=)[^&]*/, `$1${amount}`);
}

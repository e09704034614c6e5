// What stands on the screen for an image that is paid for alone. Pure: from the API's answer to words and actions.
import { money } from "./money.js";

/** @typedef {import("../../api.d.ts").GenerationStateOut} Generation */
/** @typedef {import("../../api.d.ts").TopupOut} Topup */
/** @typedef {{tone: "" | "good" | "warn" | "bad" | "calm", title: string, text: string, pay?: boolean, busy?: boolean}} View */

export const OVER = new Set(["completed", "failed", "cancelled", "superseded", "expired", "blocked"]);

/** @param {Topup} topup @param {string[]} states */
const some = (topup, ...states) => topup.received.some((one) => states.includes(one.state));

/** Whether the payer's money waits for the picture, in the payer's own wallet. @param {Topup | null | undefined} topup */
export const isHeld = (topup) => Boolean(topup && some(topup, "held"));

/** What was sent, or was to be. @param {Topup} topup */
function sum(topup) {
  const first = topup.received.find((one) => one.asset === topup.amount_due.asset);
  return money(first ?? topup.amount_due);
}

/** The moment after which nothing is taken any more. @param {Pick<Generation, "expires_at" | "state" | "topup">} now */
export function endsAt(now) {
  const ends = [now.expires_at, now.state === "awaiting_payment" ? now.topup?.quote.expires_at : null]
    .flatMap((one) => (one ? [new Date(one).getTime()] : []));
  return ends.length ? Math.min(...ends) : null;
}

/** What became of the money of a picture that did not come. @param {Topup | null | undefined} topup */
export function moneyBack(topup) {
  if (!topup || topup.received.length === 0) return "No money was taken.";
  if (topup.credited > 0) return `${sum(topup)} had been taken already, so it is a credit on your balance. Use it for the next picture.`;
  if (isHeld(topup)) return `${sum(topup)} is on its way back to your wallet.`;
  if (some(topup, "released", "vanished")) return `${sum(topup)} went back to your wallet.`;
  return `${sum(topup)} stays on record for you.`;
}

/** What is so while the picture is on its way, of the money. @param {Topup} topup */
export function moneyNow(topup) {
  if (isHeld(topup)) return `Your wallet holds ${sum(topup)} for it. That is taken only when the picture is here.`;
  return topup.credited > 0 ? `${sum(topup)} is here. If the picture does not come, it stays yours as a credit.` : "Your payment is on its way.";
}

/** @type {Record<string, [string, string]>} */
const ENDS = {
  cancelled: ["Cancelled", ""],
  failed: ["It could not be painted", "Something broke while painting."],
  expired: ["Its time is over", "It was not painted in time."],
  blocked: ["This one was not painted", "The content check stopped it. Change the prompt or the sketch and try again."],
  superseded: ["Newer strokes won", "A later version of this sketch was painted instead."],
};

/** @param {Generation} now @returns {View} */
function awaiting(now) {
  const topup = now.topup;
  if (!topup || topup.state === "opening") return { tone: "", title: "Asking for an invoice", text: "Nothing is charged yet.", busy: true };
  if (topup.state === "waiting" || topup.state === "declined") return { tone: "", title: `Pay ${money(topup.amount_due)}`, text: topup.state === "declined" ? "The payment was declined. Nothing was charged." : "", pay: true };
  if (topup.state === "underpaid") return { tone: "warn", title: `Send ${money(topup.amount_missing)} more`, text: `Got ${sum(topup)} of ${money(topup.amount_due)}.`, pay: topup.instructions?.kind === "address" };
  if (topup.state === "expired") return { tone: "", title: "This invoice has ended", text: "No money was taken.", busy: true };
  return { tone: "calm", title: "Payment received", text: "Taking its place in the line.", busy: true };
}

/** @param {Generation} now @returns {View} */
export function standing(now) {
  const money_ = now.topup ? moneyNow(now.topup) : "";
  switch (now.state) {
    case "awaiting_payment": return awaiting(now);
    case "queued": return { tone: "calm", title: isHeld(now.topup) ? "Held, and in line" : "Paid, and in line", text: money_, busy: true };
    case "running": return { tone: "calm", title: "Painting", text: money_, busy: true };
    case "settling": return { tone: "calm", title: "The picture is ready", text: "Waiting for the payment node to confirm the payment; then it is shown.", busy: true };
    case "completed": return { tone: "good", title: "Delivered and paid", text: now.topup ? `You paid ${sum(now.topup)}, as agreed.${now.topup.instructions?.kind === "invoice" ? " The preimage in your wallet is your receipt." : ""}` : "" };
    default: {
      const [title, text] = ENDS[now.state] ?? ENDS.failed;
      return { tone: now.topup && now.topup.credited > 0 ? "warn" : "", title, text: `${now.message ?? text} ${moneyBack(now.topup)}`.trim() };
    }
  }
}

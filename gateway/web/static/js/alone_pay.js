// Paying for one image alone: the invoice, the clock, and what follows, in a modal or on the image's own page.
import { useEffect, useState } from "preact/hooks";
import { endsAt, OVER, standing } from "./alone_state.js";
import { money, walletAmount } from "./money.js";
import { online } from "./store.js";
import { stream } from "./events.js";
import { Address, Connection, Invoice, Qr, Timer } from "./topup_pay.js";
import { missing, payUri } from "./topup_state.js";
import { html, Icon, Modal } from "./ui.js";

const SLOW_MS = 3_000;
/** @type {Record<string, string>} */
const MARKS = { good: "check", warn: "warn", bad: "close", calm: "clock", "": "clock" };

/** The node does not answer, and what else can be done. @param {{onCredits?: () => void}} props */
function Slow({ onCredits }) {
  const [slow, setSlow] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setSlow(true), SLOW_MS);
    return () => clearTimeout(timer);
  }, []);
  if (!slow) return null;
  return html`<p class="note note-warn" role="status"><${Icon} name="clock" /><span><strong>The payment node does not answer.</strong> Still trying; nothing is charged.</span></p>
    ${onCredits && html`<button type="button" class="button button-wide" onClick=${onCredits}>Pay another way</button>`}`;
}

/** @param {{topup: import("../../api.d.ts").TopupOut}} props */
const Hosted = ({ topup }) => html`<div class="pay-buttons"><a class="button button-primary" href=${topup.instructions?.url}><${Icon} name="card" />Continue to the card page</a></div>`;

/**
 * The payment of one image, whatever its state.
 * @param {{now: any, onCancel: () => void, onCredits?: () => void, onRenew?: () => void}} props `now` has the members of a generation
 */
export function PayAlone({ now, onCancel, onCredits, onRenew }) {
  const shown = standing(now);
  const topup = now.topup;
  const { kind } = topup?.instructions ?? {};
  const uri = topup ? payUri(topup, walletAmount(missing(topup))) : null;
  const connection = online.value ? stream.value : "offline";
  const ended = OVER.has(now.state);
  const plain = shown.pay && shown.tone === "";
  return html`<div class="pay pay-alone" data-state=${now.state}>
    <div class=${`pay-head ${shown.tone ? `pay-head-${shown.tone}` : ""} ${plain ? "pay-head-plain" : ""}`} role="status" aria-live="polite">
      ${!plain && html`<span class="pay-mark" aria-hidden="true">${shown.busy ? html`<span class="spinner"></span>` : html`<${Icon} name=${MARKS[shown.tone]} />`}</span>`}
      <div><p class="pay-title">${shown.title}</p>${plain && html`<p class="muted">for this picture</p>`}${shown.text && html`<p class="pay-text">${shown.text}</p>`}</div></div>
    ${now.state === "awaiting_payment" && shown.busy && html`<div class="skeleton qr-skeleton"></div><${Slow} onCredits=${onCredits} />`}
    ${shown.pay && uri && kind !== "redirect" && html`<${Qr} text=${uri} />`}
    ${shown.pay && kind === "invoice" && html`<${Invoice} topup=${topup} text=${uri} onDead=${onRenew} />`}
    ${shown.pay && kind === "address" && html`<${Address} topup=${topup} text=${uri} />`}
    ${shown.pay && kind === "redirect" && html`<${Hosted} topup=${topup} />`}
    ${shown.pay && html`<${Timer} topup=${topup} ends=${endsAt(now)} /><p class="hint pay-promise">${kind === "invoice"
      ? "Your wallet holds the money until the picture is here. If it does not come, it goes back by itself."
      : "It is painted once you have paid. If it does not come, the money stays yours as a credit."}</p>`}
    ${!ended && html`<${Connection} connection=${connection} />`}
    ${shown.pay && connection === "live" && kind !== "redirect" && html`<p class="connection"><span class="pulse"></span>Waiting for the payment. This page changes by itself.</p>`}
    ${now.state === "awaiting_payment" && html`<div class="pay-buttons">
      <button type="button" class="button button-quiet" disabled=${now.cancelling} onClick=${onCancel}>${now.cancelling ? "Cancelling" : "Cancel this picture"}</button>
      ${shown.pay && onCredits && html`<button type="button" class="button button-quiet" onClick=${onCredits}>Pay another way</button>`}</div>`}
  </div>`;
}

/** "1,028 sats" of the first way that holds the money until the picture is here. @param {import("../../api.d.ts").ImagePriceOut[]} prices */
export const heldPrice = (prices) => prices.find((price) => price.held);

/**
 * The first thing that is offered where a picture waits and credits are missing.
 * @param {{price: import("../../api.d.ts").ImagePriceOut, pay: () => void}} props
 */
export const Offer = ({ price, pay }) => html`<div class="alone-offer"><button type="button" class="button button-primary button-wide alone-button" onClick=${pay}><${Icon} name="bolt" />Paint this for ${money(price)}</button>
  <p class="hint">Over Lightning. Your wallet holds it until the picture is here; if it does not come, nothing is charged.</p></div>`;

/** @param {{now: any, onClose: () => void, onCancel: () => void, onCredits: () => void, onRenew: () => void}} props */
export const PayAloneModal = (props) => html`<${Modal} title="Pay for this picture" onClose=${props.onClose} class="topup-modal"><${PayAlone} ...${props} /></${Modal}>`;

// Paying, and what became of it: the code, the clock, the state, the receipt.
import { generate } from "lean-qr";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { forWhat, mine } from "./catalogue.js";
import { clock, day, inDollars, money, number, timeOfDay, walletAmount } from "./money.js";
import { forgetRecovery, recovery } from "./recovery.js";
import { rails } from "./store.js";
import { Refunds } from "./topup_refund.js";
import { isRefunded, missing, payUri, settled, view } from "./topup_state.js";
import { CopyButton, copyText, html, Icon, toast, useNow } from "./ui.js";

const QUIET_ZONE = 4;
const QR_PIXELS = 320;
const TIMER_SECONDS = 300;
/** How long a wallet in the browser may take, its owner's confirmation included. */
const WALLET_MS = 60_000;

/** Always dark on white, whatever the theme: cameras need it. @param {{text: string}} props */
export function Qr({ text }) {
  const ref = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const code = useMemo(() => generate(text), [text]);
  useLayoutEffect(() => {
    const canvas = /** @type {HTMLCanvasElement} */ (ref.current);
    code.toCanvas(/** @type {any} */ (canvas), { on: [20, 16, 12, 255], off: [255, 255, 255, 255], pad: QUIET_ZONE });
    const around = canvas.parentElement?.parentElement;
    // Whole device pixels for every module: cameras and decoders dislike uneven ones.
    const fit = () => {
      const room = Math.min(QR_PIXELS, (around?.clientWidth || QR_PIXELS) - 4) * devicePixelRatio;
      canvas.style.width = `${(Math.max(1, Math.floor(room / canvas.width)) * canvas.width) / devicePixelRatio}px`;
    };
    fit();
    // A dialog has no width before it is shown, and a phone is turned.
    const watch = new ResizeObserver(fit);
    if (around) watch.observe(around);
    return () => watch.disconnect();
  }, [code]);
  const copy = async () => { if (await copyText(text)) toast("Copied. Paste it into your wallet."); };
  return html`<button type="button" class="qr" onClick=${copy} aria-label="Copy the payment request"><canvas ref=${ref} class="qr-code"></canvas></button>`;
}

/**
 * Until when the price holds: always there to be read, and louder in the last minutes.
 * @param {{topup: import("../../api.d.ts").TopupOut, ends?: number | null}} props
 */
export function Timer({ topup, ends = new Date(topup.quote.expires_at).getTime() }) {
  const now = useNow();
  if (ends === null) return null;
  const left = Math.max(0, (ends - now) / 1000);
  return html`<p class=${`timer ${left < 60 ? "timer-soon" : left < TIMER_SECONDS ? "timer-near" : ""}`} role="timer"><${Icon} name="clock" />
    <span>This price holds for <strong class="num">${clock(left)}</strong>, until <time dateTime=${new Date(ends).toISOString()}>${timeOfDay(ends)}</time></span></p>`;
}

/** @param {{label: string, value: string, mono?: boolean}} props */
const Row = ({ label, value, mono }) => html`<div class="pay-row"><dt>${label}</dt><dd class=${mono ? "mono" : "num"}>${value}</dd></div>`;

/** What the wallet's own words mean where they say that the person did not want to. @param {unknown} error */
const refusedByPerson = (error) => error instanceof Error && /reject|cancel|denied|declined|closed|abort/i.test(error.message);

/**
 * An invoice: copied, opened in a wallet, or paid by the wallet of this browser.
 *
 * A wallet that does not come back may have sent the money or not: `onDead` then closes this invoice and gets another.
 * @param {{topup: import("../../api.d.ts").TopupOut, text: string, onDead?: () => void}} props
 */
export function Invoice({ topup, text, onDead }) {
  const webln = /** @type {any} */ (window).webln;
  const [trying, setTrying] = useState(false);
  const payHere = async () => {
    setTrying(true);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("no answer")), WALLET_MS); });
    try {
      await Promise.race([webln.enable().then(() => webln.sendPayment(topup.instructions?.text ?? text)), late]);
    } catch (error) {
      if (refusedByPerson(error)) toast("The wallet says that you did not want to pay.");
      else onDead?.();
    }
    clearTimeout(timer);
    setTrying(false);
  };
  const dollars = inDollars(topup);
  return html`${dollars && html`<p class="pay-dollars num">about ${dollars}</p>`}
    <div class="pay-buttons pay-buttons-even"><${CopyButton} text=${topup.instructions?.text ?? text} label="Copy invoice" class="button-primary" />
    <a class="button button-primary" href=${text}><${Icon} name="open" />Open wallet</a>
    ${webln && html`<button type="button" class="button" disabled=${trying} onClick=${payHere}><${Icon} name="bolt" />${trying ? "Asking the wallet" : "Pay in this browser"}</button>`}</div>`;
}

/** @param {{topup: import("../../api.d.ts").TopupOut, text: string}} props */
export function Address({ topup, text }) {
  const rest = missing(topup);
  const address = topup.instructions?.text ?? "";
  return html`<div class="pay-buttons"><${CopyButton} text=${address} label="Copy address" class="button-primary" />
    <${CopyButton} text=${walletAmount(rest)} label="Copy amount" />
    <a class="button" href=${text}><${Icon} name="open" />Open wallet</a></div>
  <dl class="pay-rows"><${Row} label="Amount" value=${money(rest)} /><${Row} label="Asset" value=${`${rest.asset} on Liquid`} /><${Row} label="Address" value=${address} mono /></dl>
  ${rest.asset !== "L-BTC" && html`<p class="note"><${Icon} name="info" /><span>Send ${rest.asset} on Liquid only. Your wallet may need a little L-BTC for the network fee.</span></p>`}`;
}

/** @param {{topup: import("../../api.d.ts").TopupOut, returned: boolean, again: () => void}} props */
function Hosted({ topup, returned, again }) {
  const [stuck, setStuck] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setStuck(true), 8_000);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="pay-buttons pay-buttons-stack">
    ${stuck && returned && html`<p class="hint">Left the card page before the end? Then nothing was charged, and you can go on there.</p>`}
    <a class=${`button ${returned ? "" : "button-primary"}`} href=${topup.instructions?.url}><${Icon} name="card" />${returned ? "Back to the card page" : "Continue to the card page"}</a>
    <button type="button" class="button button-quiet" onClick=${again}>Pay another way</button></div>`;
}

function Recovery() {
  const code = recovery.value;
  if (!code) return null;
  return html`<div class="recovery"><h2>Your recovery code</h2>
    <p>You have no account here, so these credits live in this browser. Keep this code: it brings them to another one. It is not shown again.</p>
    <p class="recovery-code mono">${code}</p>
    <div class="pay-buttons"><${CopyButton} text=${code} label="Copy the code" class="button-primary" />
      <button type="button" class="button" onClick=${forgetRecovery}>I have kept it</button></div></div>`;
}

/**
 * What was paid, where a discount or tax is in it: price, discount, tax, net, total.
 * @param {{topup: import("../../api.d.ts").TopupOut}} props
 */
function Bill({ topup }) {
  return html`${topup.received.filter((piece) => piece.breakdown).map((piece) => {
    const { price_minor, discount_minor, tax_minor, tax_on_top_minor, net_minor } = /** @type {import("../../api.d.ts").BreakdownOut} */ (piece.breakdown);
    const sum = (/** @type {number} */ amount_minor) => money({ amount_minor, asset: piece.asset });
    return html`<dl class="pay-rows bill" aria-label="What was paid">
      <${Row} label="Price" value=${sum(price_minor)} />
      ${discount_minor > 0 && html`<${Row} label="Discount" value=${`−${sum(discount_minor)}`} />`}
      ${tax_minor > 0 && html`<${Row} label="Net" value=${sum(net_minor)} />`}
      ${tax_minor > 0 && html`<${Row} label=${tax_on_top_minor > 0 ? "Tax" : "Tax, included"} value=${sum(tax_minor)} />`}
      <${Row} label="Total paid" value=${money(piece)} /></dl>`;
  })}`;
}

/** @param {{topup: import("../../api.d.ts").TopupOut, balance: string | null, waitingPicture: boolean, byLink: boolean, onClose?: () => void}} props */
function Receipt({ topup, balance, waitingPicture, byLink, onClose }) {
  const credits = topup.credited ?? topup.credits;
  const plan = topup.purchase?.kind === "plan" && topup.purchase.granted > 0 ? mine(topup.purchase.name) : undefined;
  const sum = html`${credits > 0 && html`<p class="receipt-credits num">+${number(credits)} <span>${credits === 1 ? "credit" : "credits"}</span></p>`}
    ${plan && html`<p class="receipt-plan">${topup.purchase?.label} is yours until <strong>${day(plan.lasts_until)}</strong>. It ends by itself.</p>`}`;
  if (byLink) return html`${sum}<p class="receipt-end"><strong>Credits added. Go back to your program.</strong> This page can be closed.</p>`;
  return html`${sum}
    ${balance !== null && html`<p class="muted">New balance: <strong class="num">${balance}</strong></p>`}
    ${waitingPicture && html`<p class="note note-calm"><${Icon} name="spark" /><span>Your picture is being painted.</span></p>`}
    <${Recovery} />
    <div class="pay-buttons">
      ${onClose ? html`<button type="button" class="button button-primary" onClick=${onClose}>Back to my sketch</button>` : html`<a class="button button-primary" href="/">To the sketchbook</a>`}
      <a class="button" href=${`/account?reference=${topup.id}#statement`}>Receipt in the statement</a></div>`;
}

/** @param {{connection: string}} props */
export function Connection({ connection }) {
  if (connection === "offline") return html`<p class="connection" role="status"><${Icon} name="warn" />You are offline. A payment is noticed as soon as you are back.</p>`;
  if (connection === "reconnecting") return html`<p class="connection" role="status"><span class="spinner"></span>Reconnecting; still asking every 2 seconds.</p>`;
  return null;
}

/** @type {Record<string, string>} */
const MARKS = { good: "check", warn: "warn", bad: "close", calm: "clock", "": "clock" };

/**
 * @param {{topup: import("../../api.d.ts").TopupOut, returned: boolean, waitingPicture: boolean, again: () => void, requote: () => void, renew: () => void, onClose?: () => void, byLink: boolean, connection: string, balance: string | null}} props
 */
export function Pay({ topup, returned, waitingPicture, again, requote, renew, onClose, byLink, connection, balance }) {
  const shown = view(topup);
  const { kind } = topup.instructions ?? {};
  const uri = payUri(topup, walletAmount(missing(topup)));
  const opening = kind === "redirect" && topup.state === "waiting" && !returned;
  const plain = shown.pay && kind !== "redirect" && shown.tone === "";
  return html`<div class=${`pay pay-${topup.state}`} data-state=${topup.state}>
    <div class=${`pay-head ${shown.tone ? `pay-head-${shown.tone}` : ""} ${plain ? "pay-head-plain" : ""}`} role="status" aria-live="polite">
      ${!plain && html`<span class="pay-mark" aria-hidden="true">${shown.busy ? html`<span class="spinner"></span>` : html`<${Icon} name=${MARKS[shown.tone]} />`}</span>`}
      <div><p class="pay-title">${opening ? "Opening the card page" : shown.title}</p>
        ${plain && (topup.credits > 0 || topup.purchase) && html`<p class="muted num">${forWhat(topup)}</p>`}
        ${(opening || shown.text) && html`<p class="pay-text">${opening ? `${money(topup.amount_due)}${rails.value?.rails.find((rail) => rail.name === topup.rail)?.tax_on_top ? " plus tax" : ""} on the card processor's own page. You come back here afterwards.` : shown.text}</p>`}
        ${shown.code && html`<p class="hint">Code: <span class="mono">${shown.code}</span></p>`}</div></div>
    ${["paid", "reversed", "disputed"].includes(topup.state) && html`<${Bill} topup=${topup} />`}
    ${shown.pay && uri && kind !== "redirect" && html`<${Qr} text=${uri} />`}
    ${shown.pay && kind === "invoice" && html`<${Invoice} topup=${topup} text=${uri} onDead=${renew} />`}
    ${shown.pay && kind === "address" && html`<${Address} topup=${topup} text=${uri} />`}
    ${shown.pay && kind === "redirect" && html`<${Hosted} topup=${topup} returned=${returned} again=${again} />`}
    ${shown.pay && html`<${Timer} topup=${topup} />`}
    ${!settled(topup) && html`<${Connection} connection=${connection} />`}
    ${topup.state === "waiting" && plain && connection === "live" && html`<p class="connection"><span class="pulse"></span>Waiting for the payment. This page changes by itself.</p>`}
    ${topup.state === "paid" && !isRefunded(topup) && html`<${Receipt} topup=${topup} balance=${balance} waitingPicture=${waitingPicture} byLink=${byLink} onClose=${onClose} />`}
    ${!byLink && (topup.credited > 0 || topup.refunds) && html`<${Refunds} topup=${topup} />`}
    ${shown.again && html`<div class="pay-buttons"><button type="button" class="button button-primary" onClick=${shown.again === "quote" ? requote : again}>${shown.again === "quote" ? "New quote" : "Try another way"}</button>
      ${shown.again === "quote" && html`<button type="button" class="button" onClick=${again}>Pay another way</button>`}</div>`}
    ${shown.pay && kind !== "redirect" && html`<button type="button" class="button button-quiet button-wide" onClick=${again}><${Icon} name="back" />Pay another way</button>`}
    ${shown.busy && kind !== "redirect" && !byLink && (onClose ? html`<button type="button" class="button button-quiet" onClick=${onClose}>Keep drawing meanwhile</button>` : html`<a class="button button-quiet" href="/">Keep drawing meanwhile</a>`)}
    ${!byLink && ["suspense", "reversed", "disputed"].includes(topup.state) && html`<a class="button button-quiet" href=${`/account?reference=${topup.id}#statement`}>See it in your statement</a>`}
  </div>`;
}

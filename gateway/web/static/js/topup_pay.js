// Paying, and what became of it: the code, the clock, the state, the receipt.
import { generate } from "lean-qr";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { forWhat, mine } from "./catalogue.js";
import { clock, day, money, number, walletAmount } from "./money.js";
import { forgetRecovery, recovery } from "./recovery.js";
import { Refunds } from "./topup_refund.js";
import { isRefunded, missing, payUri, settled, view } from "./topup_state.js";
import { CopyButton, copyText, html, Icon, toast, useNow } from "./ui.js";

const QUIET_ZONE = 4;
const QR_PIXELS = 320;
const TIMER_SECONDS = 300;

/** Always dark on white, whatever the theme: cameras need it. @param {{text: string}} props */
function Qr({ text }) {
  const ref = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const code = useMemo(() => generate(text), [text]);
  useLayoutEffect(() => {
    const canvas = /** @type {HTMLCanvasElement} */ (ref.current);
    code.toCanvas(/** @type {any} */ (canvas), { on: [20, 16, 12, 255], off: [255, 255, 255, 255], pad: QUIET_ZONE });
    // Whole device pixels for every module: cameras and decoders dislike uneven ones.
    const room = Math.min(QR_PIXELS, (canvas.parentElement?.parentElement?.clientWidth ?? QR_PIXELS) - 4) * devicePixelRatio;
    canvas.style.width = `${(Math.max(1, Math.floor(room / canvas.width)) * canvas.width) / devicePixelRatio}px`;
  }, [code]);
  const copy = async () => { if (await copyText(text)) toast("Copied. Paste it into your wallet."); };
  return html`<button type="button" class="qr" onClick=${copy} aria-label="Copy the payment request"><canvas ref=${ref} class="qr-code"></canvas></button>`;
}

/** @param {{topup: import("../../api.d.ts").TopupOut}} props */
function Timer({ topup }) {
  const now = useNow();
  const ends = topup.quote?.expires_at ? new Date(topup.quote.expires_at).getTime() : null;
  if (ends === null) return null;
  const left = Math.max(0, (ends - now) / 1000);
  if (left > TIMER_SECONDS) return null;
  return html`<p class=${`timer ${left < 60 ? "timer-soon" : ""}`} role="timer"><${Icon} name="clock" />This price holds for <strong class="num">${clock(left)}</strong></p>`;
}

/** @param {{label: string, value: string, mono?: boolean}} props */
const Row = ({ label, value, mono }) => html`<div class="pay-row"><dt>${label}</dt><dd class=${mono ? "mono" : "num"}>${value}</dd></div>`;

/** @param {{topup: import("../../api.d.ts").TopupOut, text: string}} props */
function Invoice({ topup, text }) {
  const webln = /** @type {any} */ (window).webln;
  const [trying, setTrying] = useState(false);
  const payHere = async () => {
    setTrying(true);
    try {
      await webln.enable();
      await webln.sendPayment(topup.instructions?.text ?? text);
    } catch (error) {
      toast(`The wallet said: ${error instanceof Error ? error.message : "no"}`);
    }
    setTrying(false);
  };
  return html`<div class="pay-buttons"><${CopyButton} text=${topup.instructions?.text ?? text} label="Copy invoice" class="button-primary" />
    <a class="button" href=${text}><${Icon} name="open" />Open wallet</a>
    ${webln && html`<button type="button" class="button" disabled=${trying} onClick=${payHere}><${Icon} name="bolt" />${trying ? "Asking the wallet" : "Pay in this browser"}</button>`}</div>`;
}

/** @param {{topup: import("../../api.d.ts").TopupOut, text: string}} props */
function Address({ topup, text }) {
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
function Connection({ connection }) {
  if (connection === "offline") return html`<p class="connection" role="status"><${Icon} name="warn" />You are offline. A payment is noticed as soon as you are back.</p>`;
  if (connection === "reconnecting") return html`<p class="connection" role="status"><span class="spinner"></span>Reconnecting; still asking every 2 seconds.</p>`;
  return null;
}

/** @type {Record<string, string>} */
const MARKS = { good: "check", warn: "warn", bad: "close", calm: "clock", "": "clock" };

/**
 * @param {{topup: import("../../api.d.ts").TopupOut, returned: boolean, waitingPicture: boolean, again: () => void, requote: () => void, onClose?: () => void, byLink: boolean, connection: string, balance: string | null}} props
 */
export function Pay({ topup, returned, waitingPicture, again, requote, onClose, byLink, connection, balance }) {
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
        ${(opening || shown.text) && html`<p class="pay-text">${opening ? `${money(topup.amount_due)} on the card processor's own page. You come back here afterwards.` : shown.text}</p>`}
        ${shown.code && html`<p class="hint">Code: <span class="mono">${shown.code}</span></p>`}</div></div>
    ${shown.pay && uri && kind !== "redirect" && html`<${Qr} text=${uri} />`}
    ${shown.pay && kind === "invoice" && html`<${Invoice} topup=${topup} text=${uri} />`}
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

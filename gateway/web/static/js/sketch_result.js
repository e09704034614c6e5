// The right-hand page: what became of the drawing.
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { endsAt, isHeld, moneyBack, moneyNow } from "./alone_state.js";
import { again, askForCredits, cancel, creditsInstead, job, paying } from "./jobs.js";
import { money, plural, timeOfDay } from "./money.js";
import { online } from "./store.js";
import { html, Icon, toast, useNow } from "./ui.js";

const comparing = signal(false);

/** @param {number | null | undefined} position */
function place(position) {
  if (typeof position !== "number") return "In the queue";
  if (position <= 1) return "Next in line";
  const ending = position % 10 === 2 && position % 100 !== 12 ? "nd" : position % 10 === 3 && position % 100 !== 13 ? "rd" : position % 10 === 1 && position % 100 !== 11 ? "st" : "th";
  return `${position}${ending} in line`;
}

/** @param {{low: number, high: number} | null | undefined} eta */
function range(eta) {
  if (!eta) return "";
  const [low, high] = [Math.max(1, Math.round(eta.low)), Math.max(1, Math.round(eta.high))];
  return low === high ? `about ${low} s` : `about ${low} to ${high} s`;
}

/** @param {string} id */
async function notifyWhenDone(id) {
  if ((await Notification.requestPermission()) !== "granted") return toast("The browser does not allow notifications.");
  toast("You will be told when the picture is there.");
  const stop = job.subscribe((now) => {
    if (now?.id !== id || now.phase === "waiting") return;
    new Notification(now.phase === "done" ? "Your picture is ready" : "Your picture could not be painted; nothing was charged");
    queueMicrotask(() => stop());
  });
}

/** @param {{now: any}} props */
function Waiting({ now }) {
  const clock = useNow();
  const painting = now.state === "running" || now.state === "settling";
  const value = now.progress ? now.progress.value / now.progress.max : 0;
  const unpaid = now.state === "awaiting_payment";
  const nobody = !painting && !unpaid && now.phase !== "sending" && now.workers === 0;
  const title = now.phase === "sending" ? "Sending your sketch" : unpaid ? "Waiting for your payment" : now.state === "settling" ? "Ready: taking the payment" : painting ? "Painting" : nobody ? "Nobody can paint at the moment" : place(now.position);
  return html`<div class="wash" aria-hidden="true"></div>
    ${now.preview && html`<img class="preview" src=${now.preview} alt="" /><span class="preview-label tag">Rough preview</span>`}
    <div class="status" role="status">
      <p class="status-title">${title}${!painting && !nobody && !unpaid && range(now.eta) && html`<span class="status-eta">, ${range(now.eta)}</span>`}</p>
      ${now.progress ? html`<progress class="bar" max="1" value=${value} aria-label="Painting"></progress>` : html`<div class="bar bar-idle" aria-hidden="true"></div>`}
      ${unpaid ? html`<p class="hint">It is painted as soon as your wallet has sent ${now.topup ? money(now.topup.amount_due) : "the payment"}. Nothing is charged before.</p>` : html`<p class="hint">${nobody ? "Your sketch waits for a machine to come back. If none does within ten minutes, you are not charged." : now.topup ? moneyNow(now.topup) : "The credit is only held until the picture is here. Keep drawing meanwhile."}</p>`}
      ${now.topup && !unpaid && endsAt(now) && now.state !== "settling" && html`<p class="hint">${isHeld(now.topup) ? "If it is not here by" : "It is painted by"} <span class="num">${timeOfDay(/** @type {number} */ (endsAt(now)))}</span>${isHeld(now.topup) ? ", your payment goes back by itself." : ", or the money stays yours."}</p>`}
      <div class="actions-row">
        ${unpaid && now.id && html`<button type="button" class="button button-primary" onClick=${() => { paying.value = true; }}>Show the invoice</button>`}
        ${now.id && html`<button type="button" class="button" disabled=${now.cancelling} onClick=${cancel}>${now.cancelling ? "Cancelling" : "Cancel"}</button>`}
        ${now.id && clock - now.since > 20_000 && "Notification" in window && html`<button type="button" class="button button-quiet" onClick=${() => notifyWhenDone(now.id)}>Tell me when it is done</button>`}
      </div>
    </div>`;
}

/** @param {{now: any}} props */
function Compare({ now }) {
  const [share, setShare] = useState(50);
  return html`<div class="compare" style=${{ "--share": `${share}%` }}>
    <img class="compare-under" src=${now.sketchUrl} alt="" />
    <input type="range" min="0" max="100" value=${share} aria-label="Sketch against picture" onInput=${(/** @type {any} */ event) => setShare(Number(event.target.value))} />
    <span class="compare-handle" aria-hidden="true"></span>
    <span class="tag compare-left" aria-hidden="true">Sketch</span><span class="tag compare-right" aria-hidden="true">Picture</span>
  </div>`;
}

/** @param {{now: any, onReuse: (url: string) => void}} props */
function Done({ now, onReuse }) {
  const cost = now.credits?.captured;
  return html`<img class="picture" src=${now.image} alt=${`Painted: ${now.prompt ?? "your sketch"}`} />
    ${comparing.value && now.sketchUrl && html`<${Compare} now=${now} />`}
    <div class="picture-bar">
      <div class="picture-tools" role="group" aria-label="Picture">
        <a class="icon-button" href=${now.image} download=${`llamasketch-${now.id}`} aria-label="Download" title="Download"><${Icon} name="download" /></a>
        <button type="button" class="icon-button" aria-label="Compare with the sketch" title="Compare with the sketch" aria-pressed=${comparing.value} disabled=${!now.sketchUrl}
          onClick=${() => { comparing.value = !comparing.value; }}><${Icon} name="compare" /></button>
        <button type="button" class="icon-button" aria-label="Use as sketch" title="Use as sketch" onClick=${() => onReuse(now.image)}><${Icon} name="reuse" /></button>
      </div>
      <a class="debit" href=${`/images/${now.id}`}>${now.topup ? money(now.topup.received[0] ?? now.topup.amount_due) : typeof cost === "number" ? plural(cost, "credit") : "Its debit"}<span aria-hidden="true"> ↗</span><span class="visually-hidden">, see the debit</span></a>
    </div>`;
}

/** @type {Record<string, [string, string]>} */
const ENDS = {
  failed: ["Painting failed", "Something broke while painting. Your sketch is untouched."],
  blocked: ["This one was not painted", "The content check stopped it. Change the prompt or the sketch and try again."],
  cancelled: ["Cancelled", "You stopped this picture."],
  expired: ["It took too long", "No machine was free in time."],
  superseded: ["Newer strokes won", "A later version of this sketch was painted instead."],
};

/** @param {{now: any}} props */
function Over({ now }) {
  const unpaid = now.topup?.received.length === 0 && (now.state === "failed" || now.state === "expired");
  const [title, text] = unpaid ? ["Not paid in time", ""] : ENDS[now.state] ?? ENDS.failed;
  const retry = now.state === "failed" || now.state === "expired" || now.state === "cancelled";
  return html`<div class="ending" role="status">
    <span class=${`tag ${now.state === "blocked" ? "tag-warn" : "tag-good"}`}><${Icon} name="check" />${now.topup?.credited > 0 ? "Yours as a credit" : "Not charged"}</span>
    <h2>${title}</h2><p class="muted">${now.message ?? text}</p>
    ${now.topup !== undefined && now.topup !== null ? html`<p class="hint">${moneyBack(now.topup)}</p>` : now.unheld ? html`<p class="hint">No credit was held for it.</p>`
      : html`<p class="hint">The held credit went back. <a href=${`/account?reference=${now.id}#statement`}>See the release in your statement</a></p>`}
    ${retry && html`<p class="hint">Press Paint to try again.</p>`}
  </div>`;
}

/** @param {{now: any}} props */
function Refused({ now }) {
  const wait = now.problem?.body?.retry_after_seconds;
  if (now.phase === "unpaid") {
    return html`<div class="ending" role="status"><h2>Almost there</h2>
      <p class="muted">Your free pictures for today are used up. Top up, and this one is painted by itself.</p>
      <button type="button" class="button button-primary" onClick=${askForCredits}>Top up</button></div>`;
  }
  const alone = Boolean(now.request?.body.funding);
  return html`<div class="ending" role="alert"><span class="tag tag-good"><${Icon} name="check" />Not charged</span>
    <h2>${now.problem?.status === 0 ? "No answer" : now.problem?.status === 429 ? "One moment" : "That did not work"}</h2>
    <p class="muted">${now.problem?.message}${wait ? ` Try again in ${wait} s.` : ""}</p>
    <div class="actions-row">${alone && html`<button type="button" class="button button-primary" onClick=${creditsInstead}>Buy credits instead</button>`}
      <button type="button" class="button" onClick=${again}><${Icon} name="reuse" />Try again</button></div></div>`;
}

/** @param {{onReuse: (url: string) => void}} props */
export function Result({ onReuse }) {
  const now = job.value;
  useEffect(() => { comparing.value = false; }, [now?.id]);
  const phase = now?.phase ?? "none";
  return html`<section class="leaf leaf-result" aria-label="Picture" data-phase=${phase} aria-busy=${phase === "waiting" || phase === "sending"}>
    ${!now && html`<div class="ending ending-empty"><${Icon} name="spark" /><p>The picture appears here.</p></div>`}
    ${(phase === "waiting" || phase === "sending") && html`<${Waiting} now=${now} />`}
    ${phase === "live" && (now.image ? html`<img class="picture" src=${now.image} alt="The last picture of this sketch" />` : html`<div class="wash" aria-hidden="true"></div>`)}
    ${phase === "live" && html`<span class="preview-label tag tag-calm"><span class="spinner"></span>Painting along</span>`}
    ${phase === "done" && html`<${Done} now=${now} onReuse=${onReuse} />`}
    ${phase === "over" && html`<${Over} now=${now} />`}
    ${(phase === "unpaid" || phase === "refused") && html`<${Refused} now=${now} />`}
    ${!online.value && html`<div class="offline-note note note-warn" role="status"><${Icon} name="warn" /><span><strong>You are offline.</strong> Draw on: every stroke is kept in this browser. Painting waits for the network.</span></div>`}
  </section>`;
}

// The sketch page: an open book, the drawing on the left, the picture on the right.
import { effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { loadCatalogue, catalogue } from "./catalogue.js";
import { cancel, creditsInstead, gallery, job, paint, paintAlone, paying, renewPayment, showPicture } from "./jobs.js";
import * as live from "./live.js";
import { money, plural } from "./money.js";
import { Pad, SHEET } from "./pad.js";
import { listen } from "./pad_input.js";
import { DEFAULT_PROMPT, IDEAS, rememberPrompt, STYLES, used } from "./prompts.js";
import { mount } from "./shell.js";
import { Result } from "./sketch_result.js";
import { hotkeys, style, Tools } from "./sketch_tools.js";
import { online, balance, recall, remember, topupRequest } from "./store.js";
import { html, Icon, Modal, toast } from "./ui.js";

const pad = new Pad();
const prompt = signal(recall("prompt") ?? DEFAULT_PROMPT);
const manner = signal(recall("style") ?? "none");
const seed = signal("");
const strength = signal(60);
const dialog = signal(/** @type {null | "ideas" | "keys"} */ (null));
const greeted = signal(recall("greeted") === "yes");
const cursor = signal(/** @type {null | {x: number, y: number, down: boolean}} */ (null));

effect(() => remember("prompt", prompt.value));
effect(() => remember("style", manner.value));

/** What is asked of the worker, besides the drawing. */
function request() {
  const words = prompt.value.trim() || DEFAULT_PROMPT;
  const suffix = STYLES.find((one) => one.id === manner.value)?.suffix;
  return {
    prompt: suffix ? `${words}, ${suffix}` : words,
    strength: strength.value / 100,
    ...(/^\d+$/.test(seed.value) ? { seed: Number(seed.value) } : {}),
  };
}

const NOTHING_SEEN = "Nothing can be seen on the page. Draw something first, in a colour that stands out from the paper.";

const busy = () => job.value?.phase === "sending" || job.value?.phase === "waiting";

/** What this picture costs if it is paid for alone, where the money is held until it is here; for whom has no credits. */
const aloneAt = () => (balance.value?.empty ? catalogue.value?.image_prices.find((price) => price.held) : undefined);
effect(() => { if (balance.value?.empty && !catalogue.value) loadCatalogue().catch(() => {}); });

/** @param {boolean} [byCredits] although there are none: then they are offered */
async function paintNow(byCredits = false) {
  if (busy() || !online.value || live.live.value !== "off") return;
  if (pad.look()) {
    toast(pad.empty.value ? "Draw something first: one stroke is enough." : NOTHING_SEEN);
    return;
  }
  rememberPrompt(prompt.value.trim() || DEFAULT_PROMPT);
  const price = byCredits ? undefined : aloneAt();
  const wanted = { ...request(), sketch: await pad.export(SHEET) };
  const painting = price ? paintAlone(wanted, price) : paint(wanted);
  document.querySelector(".leaf-result")?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  await painting;
}

function toggleLive() {
  if (live.live.value === "off") live.begin(pad, request);
  else live.stop();
}

/** @param {string} url */
async function reuse(url) {
  const response = await fetch(url);
  if (!response.ok) return toast("The picture cannot be read just now.");
  await pad.place(await response.blob());
  toast("Draw over your picture. Undo brings the sketch back.");
}

function Ghost() {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const art = /** @type {HTMLTemplateElement} */ (document.getElementById("ghost-art"));
    ref.current?.replaceChildren(art.content.cloneNode(true));
  }, []);
  return html`<div class="ghost-place" ref=${ref} aria-hidden="true"></div>`;
}

function Sheet() {
  const ref = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const canvas = /** @type {HTMLCanvasElement} */ (ref.current);
    const detach = pad.attach(canvas);
    const deaf = listen(canvas, pad, style, (at) => { cursor.value = at; });
    pad.restore();
    return () => { deaf(); detach(); };
  }, []);
  const at = cursor.value;
  return html`<section class="leaf leaf-sketch" aria-label="Sketch">
    ${pad.empty.value && html`<${Ghost} />`}
    <canvas ref=${ref} class="sheet" tabindex="0" role="img" aria-label="Drawing area. Draw with mouse, finger or pen; or move with the arrow keys and put the pen down with Space."></canvas>
    ${at && html`<span class=${`cursor ${at.down ? "cursor-down" : ""}`} style=${{ "--x": `${at.x / 10.24}%`, "--y": `${at.y / 10.24}%` }} aria-hidden="true"></span>`}
    ${pad.empty.value && !greeted.value && html`<div class="greeting" role="note">
      <p><strong>Draw anything here,</strong> then press Paint. ${balance.value?.free ? `${plural(balance.value.free, "picture")} today ${balance.value.free === 1 ? "is" : "are"} free.` : ""}</p>
      <button type="button" class="button" onClick=${() => { greeted.value = true; remember("greeted", "yes"); }}>Got it</button></div>`}
  </section>`;
}

function price() {
  const now = balance.value;
  if (!now) return "1 credit";
  if (now.free > 0) return `free: ${now.free} left today`;
  return "1 credit";
}

function LiveBar() {
  const state = live.live.value;
  /** @type {Record<string, string>} */
  const words = {
    painting: "Painting along", ready: "Ready: draw", idle: "Paused until you draw on", hidden: "Paused: tab hidden",
    cap: "Spend limit reached", offline: "Paused: offline", refused: "Paused: this frame was refused",
  };
  const on = state !== "off";
  return html`<div class="live">
    <button type="button" class="live-switch" role="switch" aria-checked=${on} onClick=${toggleLive} title="Live (L)">
      <span class="live-knob" aria-hidden="true"></span>Live</button>
    ${on ? html`<span class="live-state" role="status">${state === "painting" && html`<span class="pulse"></span>`}${words[state]}</span>
      <span class="live-spend num">${live.spent.value} of <label><span class="visually-hidden">Spend limit in credits</span>
        <select value=${String(live.cap.value)} onChange=${(/** @type {any} */ event) => { live.cap.value = Number(event.target.value); }}>
          ${[20, 50, 100, 300].map((one) => html`<option value=${one}>${one}</option>`)}</select></label> credits</span>`
      : html`<span class="hint">paints while you draw, a credit a frame</span>`}
  </div>`;
}

function busyWord() {
  const now = job.value;
  if (now?.state === "awaiting_payment") return "Waiting for payment";
  return now?.workers === 0 && now.state === "queued" ? "Waiting" : "Painting";
}

function Desk() {
  const now = balance.value;
  const free = (now?.free ?? 0) > 0;
  const alone = aloneAt();
  const blocked = !online.value || live.live.value !== "off";
  return html`<form class="desk" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); paintNow(); }}>
    <div class="desk-words">
      <div class="desk-label"><label class="label" for="prompt">What is it?</label>
        <button type="button" class="text-button" onClick=${() => { dialog.value = "ideas"; }}><${Icon} name="book" />Ideas</button></div>
      <textarea id="prompt" class="input prompt" rows="2" maxlength="2000" placeholder=${DEFAULT_PROMPT} value=${prompt.value}
        onInput=${(/** @type {any} */ event) => { prompt.value = event.target.value; }}></textarea>
      <fieldset class="styles"><legend class="visually-hidden">Style</legend>
        ${STYLES.map((one) => html`<label class="chip"><input type="radio" name="style" value=${one.id} checked=${manner.value === one.id}
          onChange=${() => { manner.value = one.id; }} /><span>${one.name}</span></label>`)}</fieldset>
    </div>
    <div class="desk-go">
      <button type="submit" class="button button-primary paint" aria-describedby=${pad.faded.value ? "paint-why" : undefined} aria-disabled=${blocked || busy() ? "true" : undefined}>
        <span class="paint-word">${busy() ? html`<span class="spinner"></span>${busyWord()}` : alone ? "Paint this " : html`Paint<span class="paint-dash"> — </span>`}</span>
        ${!busy() && html`<span class="paint-price num">${pad.faded.value ? "nothing to see yet" : alone ? `for ${money(alone)}` : price()}</span>`}</button>
      ${pad.faded.value && html`<p class="hint low" id="paint-why" role="status">${NOTHING_SEEN} Nothing is charged.</p>`}
      ${!online.value && html`<p class="hint" role="status">Painting needs the network.</p>`}
      ${online.value && now?.low && html`<p class="hint low" role="status">${free && !now.paid ? `${plural(now.free, "free picture")} left today.` : `${plural(now.available, "credit")} left.`}
        <button type="button" class="text-button" onClick=${() => { topupRequest.value = { reason: "low" }; }}>Top up</button></p>`}
      ${online.value && now?.empty && !alone && html`<p class="hint low" role="status">No credits left. Paint opens the top-up, and the picture follows by itself.</p>`}
      ${online.value && alone && !busy() && html`<p class="hint" role="status">No credits left. Pay for this picture alone: your wallet holds the money until it is here.
        <button type="button" class="text-button" onClick=${() => paintNow(true)}>Buy credits instead</button></p>`}
      <${LiveBar} />
      <details class="fine"><summary>Fine control</summary>
        <div class="fine-body">
          <label class="field"><span class="label">Keep my lines <span class="muted num">${strength.value} %</span></span>
            <input type="range" min="0" max="100" step="5" value=${strength.value} onInput=${(/** @type {any} */ event) => { strength.value = Number(event.target.value); }} />
            <span class="hint fine-ends"><span>loosely</span><span>closely</span></span></label>
          <label class="field"><span class="label">Seed</span>
            <input class="input" inputmode="numeric" pattern="[0-9]*" maxlength="15" placeholder="random" value=${seed.value} onInput=${(/** @type {any} */ event) => { seed.value = event.target.value; }} />
            <span class="hint">The same seed, words and sketch give the same picture.</span></label>
          <button type="button" class="text-button" onClick=${() => { dialog.value = "keys"; }}><${Icon} name="keys" />Keyboard</button>
        </div></details>
    </div>
  </form>`;
}

function Strip() {
  if (gallery.value.length === 0) return null;
  return html`<section class="strip" aria-labelledby="strip-title"><h2 id="strip-title" class="strip-title">This session</h2>
    <ul>${gallery.value.map((one) => html`<li key=${one.id}><button type="button" aria-current=${job.value?.id === one.id ? "true" : undefined} onClick=${() => showPicture(one)}>
      <img src=${one.thumbnail ?? one.image} alt=${one.prompt ?? "A picture"} loading="lazy" /></button></li>`)}</ul></section>`;
}

/** @param {{title: string, list: string[]}} props */
const PromptList = ({ title, list }) => html`<h3>${title}</h3><ul class="ideas">${list.map((one) => html`<li><button type="button" onClick=${() => { prompt.value = one; dialog.value = null; }}>${one}</button></li>`)}</ul>`;

const KEYS = [["B / E", "pen, eraser"], ["1 – 7", "colours"], ["[  ]", "thinner, broader"], ["Ctrl Z", "undo"], ["Ctrl Shift Z", "redo"],
  ["Shift Delete", "clear the page"], ["Ctrl Enter", "paint"], ["L", "live on or off"], ["Arrows, Space", "draw by keyboard, on the focused page"], ["?", "this list"]];

function Dialogs() {
  const close = () => { dialog.value = null; };
  if (dialog.value === "ideas") {
    return html`<${Modal} title="Ideas" onClose=${close}>${used.value.length > 0 && html`<${PromptList} title="Yours" list=${used.value} />`}
      <${PromptList} title="To begin with" list=${IDEAS} /></${Modal}>`;
  }
  if (dialog.value === "keys") {
    return html`<${Modal} title="Keyboard" onClose=${close}><dl class="keys">${KEYS.map(([key, text]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl></${Modal}>`;
  }
  return null;
}

/** The payment's view is loaded when it is first wanted. */
const PayModal = signal(/** @type {any} */ (null));
function Payment() {
  const now = job.value;
  const wanted = paying.value && now?.state === "awaiting_payment";
  if (wanted && !PayModal.value) import("./alone_pay.js").then((module) => { PayModal.value = module.PayAloneModal; });
  if (!wanted || !PayModal.value) return null;
  return html`<${PayModal.value} now=${now} onClose=${() => { paying.value = false; }} onCancel=${cancel} onCredits=${creditsInstead} onRenew=${renewPayment} />`;
}

function Studio() {
  return html`<h1 class="studio-title">Draw a little. <em>Get a picture.</em></h1>
    <div class="spread"><${Tools} pad=${pad} /><${Sheet} /><div class="gutter" aria-hidden="true"></div><${Result} onReuse=${reuse} /></div>
    <${Desk} /><${Strip} /><${Dialogs} /><${Payment} />`;
}

pad.revision.subscribe(() => live.drawn());
hotkeys(pad, { paint: () => paintNow(), live: toggleLive, help: () => { dialog.value = "keys"; } });
mount(html`<${Studio} />`, "studio");

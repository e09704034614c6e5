// Which letters an account gets, by the link in each of them: no sign-in, and nothing else of the account.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { mount } from "./shell.js";
import { html, Icon } from "./ui.js";

const token = decodeURIComponent(location.pathname.split("/").pop() ?? "");
const path = /** @type {"/v1/mail/{token}"} */ (`/v1/mail/${encodeURIComponent(token)}`);
const optional = signal(/** @type {boolean | null} */ (null));
const refused = signal(false);
const wrong = signal("");
const busy = signal(false);

/** @param {() => Promise<{optional: boolean}>} ask */
async function run(ask) {
  busy.value = true;
  wrong.value = "";
  try {
    optional.value = (await ask()).optional;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    refused.value = error.code === "mail_link_not_valid";
    wrong.value = error.status === 429 ? "Too many tries. Wait a little." : error.message;
  }
  busy.value = false;
}

const read = () => run(() => api("GET", path));
/** @param {boolean} wanted */
const choose = (wanted) => run(() => api("PUT", path, { body: { optional: wanted } }));

function Choice() {
  const on = optional.value;
  return html`<section class="card who" aria-labelledby="mail-title">
    <h2 id="mail-title">Receipts and reminders are ${on ? "on" : "off"}</h2>
    <p class="muted">${on ? "You get a receipt for each payment that arrives." : "You get no receipts. They are all in your account's statement."}${" "}What you must know, such as what became of a refund, is always mailed.</p>
    <button type="button" class=${`button ${on ? "" : "button-primary"}`} disabled=${busy.value} onClick=${() => choose(!on)}>Turn them ${on ? "off" : "on"}</button>
    <p class="visually-hidden" role="status">Receipts and reminders are ${on ? "on" : "off"}.</p></section>`;
}

function Page() {
  useEffect(() => { read(); }, []);
  return html`<h1>What we mail you</h1>
    ${refused.value ? html`<p class="note note-warn" role="alert"><${Icon} name="warn" /><span><strong>This link does not work.</strong> It may have been cut off when it was copied. Open it from the letter, or sign in: your account has the same choice.</span></p>`
      : html`${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value} <button type="button" class="button" onClick=${read}>Try again</button></span></p>`}
        ${optional.value === null ? !wrong.value && html`<div class="skeleton skeleton-tall" aria-hidden="true"></div>` : html`<${Choice} />`}`}`;
}

mount(html`<${Page} />`, "mail");

// What operators do with money: a form for each, with a reason, and one key for as long as the form is open.
import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { api, newKey, Problem } from "./api.js";
import { plural } from "./money.js";
import { html, Icon, Modal, toast } from "./ui.js";

/** @typedef {{id: string, label: string, hint?: string, kind?: "number" | "text", optional?: boolean, value?: string | number}} Field */
/** @typedef {Record<string, any>} About what a button is about: ids, and words for the form */
/** @typedef {{button: string, title: (about: About) => string, text: (about: About) => string, fields: (about: About) => Field[], path: (about: About) => string, body: (about: About, given: Record<string, string>) => Record<string, unknown>}} Action */

/** @param {string | null} to @returns {Field[]} */
const destination = (to) => (to === "invoice" || to === "address" ? [{ id: "destination", label: to === "invoice" ? "Invoice or Lightning address of the payer" : "Address of the payer" }] : []);

/** @param {About} about */
const refundPath = (about) => `/v1/operator/payments/${about.payment}/refunds/${about.refund}`;
/** @param {About} about */
const suspensePath = (about) => `/v1/operator/payments/${about.payment}/suspense`;

/** @type {Record<"refund" | "accept" | "assign" | "giveBack" | "sent" | "failed" | "adjust" | "forgive", Action>} */
export const ACTIONS = {
  refund: { button: "Refund", title: (about) => `Refund ${about.sum}?`, text: (about) => `${plural(about.credits, "unspent credit")} at most. The credits are held at once, and the money is sent by itself where the rail can.`,
    fields: (about) => [{ id: "credits", label: "Credits", kind: "number", value: about.credits }, ...destination(about.to)],
    path: (about) => `/v1/operator/payments/${about.payment}/refund`,
    body: (about, given) => ({ lot_id: about.lot, credits: Number(given.credits), ...(given.destination ? { destination: given.destination } : {}) }) },
  accept: { button: "Accept", title: (about) => `Credit ${about.sum} at today's rate?`, text: () => "Its payer agreed to credits for it.", fields: () => [], path: suspensePath, body: (about) => ({ money_ref: about.money_ref, action: "accept" }) },
  assign: { button: "Assign", title: (about) => `How many credits for ${about.sum}?`, text: () => "So many, whatever the money is worth.", fields: () => [{ id: "credits", label: "Credits", kind: "number" }],
    path: suspensePath, body: (about, given) => ({ money_ref: about.money_ref, action: "assign", credits: Number(given.credits) }) },
  giveBack: { button: "Return", title: (about) => `Send ${about.sum} back?`, text: () => "All of it. Name where to, unless the rail sends it back by itself.", fields: () => [{ id: "destination", label: "Address or invoice of the payer", optional: true }],
    path: suspensePath, body: (about, given) => ({ money_ref: about.money_ref, action: "return", ...(given.destination ? { destination: given.destination } : {}) }) },
  sent: { button: "Record as sent", title: () => "It was sent by hand?", text: () => "The credits are gone for good then.", fields: () => [{ id: "reference", label: "Where it can be found", hint: "The transaction's id." }],
    path: refundPath, body: (_about, given) => ({ sent: true, reference: given.reference }) },
  failed: { button: "Cannot be sent", title: () => "It cannot be sent?", text: () => "The credits go back to the account.", fields: () => [], path: refundPath, body: () => ({ sent: false }) },
  adjust: { button: "Adjust credits", title: () => "Adjust an account", text: () => "Grant credits, or take away what is neither held nor spent (a negative number).",
    fields: (about) => [{ id: "account", label: "Account", value: about.account ?? "" }, { id: "credits", label: "Credits", kind: "number" }],
    path: (about) => `/v1/operator/accounts/${encodeURIComponent(about.account)}/adjust`, body: (_about, given) => ({ credits: Number(given.credits) }) },
  forgive: { button: "Forgive", title: (about) => `Forgive ${plural(about.debt, "credit")}?`, text: () => "The account may use free and paid credits again.", fields: (about) => [{ id: "credits", label: "Credits", kind: "number", value: about.debt }],
    path: (about) => `/v1/operator/accounts/${encodeURIComponent(about.account)}/forgive`, body: (_about, given) => ({ credits: Number(given.credits) }) },
};

export const act = signal(/** @type {{name: keyof typeof ACTIONS, about: About} | null} */ (null));
let after = () => {};
/** What follows when something was done. @param {() => unknown} what */
export function acted(what) { after = () => { what(); }; }

/** @param {{action: Action, about: About}} props */
function Form({ action, about }) {
  const fields = [...action.fields(about), { id: "reason", label: "Why", hint: "Kept for ever in the log: no personal data." }];
  const [given, setGiven] = useState(/** @type {Record<string, string>} */ (Object.fromEntries(fields.map((field) => [field.id, String(/** @type {Field} */ (field).value ?? "")]))));
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const [key, setKey] = useState(newKey);
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    const whom = given.account ? { ...about, account: given.account.trim() } : about;
    const trimmed = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value.trim()]));
    try {
      await api("POST", action.path(whom), { body: { ...action.body(whom, trimmed), reason: trimmed.reason }, key });
      act.value = null;
      toast("Done.");
      after();
    } catch (error) {
      setProblem(error instanceof Problem ? error.message : "That did not work. Please try again.");
      // No answer, or a busy server: the same key makes sure that it is done once.
      if (error instanceof Problem && error.status >= 400 && error.status < 500) setKey(newKey());
    }
    setBusy(false);
  };
  return html`<form class="op-form" onSubmit=${send}><p>${action.text(about)}</p>
    ${fields.map((/** @type {Field} */ field) => html`<div class="field"><label for=${`act-${field.id}`}>${field.label}</label>
      <input id=${`act-${field.id}`} class="input" type=${field.kind === "number" ? "number" : "text"} step=${field.kind === "number" ? 1 : undefined} required=${!field.optional} maxlength="2000" autocomplete="off" spellcheck=${field.id === "reason"} value=${given[field.id]}
        aria-describedby=${field.hint ? `act-${field.id}-hint` : undefined} onInput=${(/** @type {any} */ event) => setGiven({ ...given, [field.id]: event.target.value })} />
      ${field.hint && html`<p id=${`act-${field.id}-hint`} class="hint">${field.hint}</p>`}</div>`)}
    ${problem && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem}</span></p>`}
    <div class="actions-row"><button type="submit" class="button button-primary" disabled=${busy}>${busy ? "Asking" : action.button}</button><button type="button" class="button" disabled=${busy} onClick=${() => { act.value = null; }}>Cancel</button></div></form>`;
}

/** The form of what is being done, if anything is. */
export function Act() {
  const now = act.value;
  if (!now) return null;
  const action = ACTIONS[now.name];
  return html`<${Modal} title=${action.title(now.about)} onClose=${() => { act.value = null; }}><${Form} action=${action} about=${now.about} /><//>`;
}

// Refunds of a top-up: what became of them, and asking for one.
import { useEffect, useState } from "preact/hooks";
import { api, newKey, Problem } from "./api.js";
import { day, money, plural } from "./money.js";
import { html, Icon } from "./ui.js";

/** @typedef {import("../../api.d.ts").RefundOut} Refund */
/** @typedef {import("../../api.d.ts").RefundOfferOut} Offer */

/** @type {Record<string, string>} by what the rail's refunds go to */
const ARRIVES = {
  origin: "Your bank may take five to ten days to show it.",
  invoice: "It was paid to your invoice or address.",
  address: "It was sent to your address.",
};

/** @param {Refund} refund @param {string | null} to @returns {[string, string, string]} tone, title and text */
function words(refund, to) {
  const sum = money(refund);
  const credits = plural(refund.credits, "credit");
  switch (refund.state) {
    case "requested": return ["calm", `Refund of ${sum} requested`, refund.by_hand
      ? "It is on its way: a person sends it by hand. Its credits are held until then."
      : `It is on its way. ${refund.credits ? `${credits} ${refund.credits === 1 ? "is" : "are"} held until it has left.` : ""}`];
    case "sent": return ["good", `Refund of ${sum} sent`, ARRIVES[to ?? ""] ?? ""];
    case "returned": return ["warn", `Refund of ${sum} came back`, `The bank could not deliver it. ${credits} ${refund.credits === 1 ? "is" : "are"} yours again.`];
    default: return ["bad", `Refund of ${sum} failed`, `Nothing was sent${refund.credits ? `, and ${credits} ${refund.credits === 1 ? "is" : "are"} yours again` : ""}.${to === "invoice" ? " The invoice may have expired, or the address took no such amount." : ""}`];
  }
}

/** @type {Record<string, string>} */
const MARKS = { calm: "clock", good: "check", warn: "undo", bad: "warn" };

/** @param {{refund: Refund, to: string | null}} props */
function Known({ refund, to }) {
  const [tone, title, text] = words(refund, to);
  return html`<li class=${`note note-${tone} refund`} data-state=${refund.state}><${Icon} name=${MARKS[tone]} />
    <span><strong>${title}</strong>${text} <a href=${`/account?reference=${refund.id}#statement`}>In the statement</a></span></li>`;
}

/** @type {Record<string, {label: string, hint: (sum: string) => string, placeholder: string}>} */
const FIELDS = {
  invoice: { label: "Your Lightning address or invoice", hint: (sum) => `An address such as you@wallet.com, or an invoice for exactly ${sum} that is good for an hour or more. What sending it may cost is taken off already.`, placeholder: "you@wallet.com or lnbc…" },
  address: { label: "Your address", hint: (sum) => `${sum} goes there. A person sends it by hand, within a few days.`, placeholder: "Liquid address" },
};

/** @param {{topup: string, offer: Offer, to: string | null, done: (answer: import("../../api.d.ts").TopupOut) => void}} props */
function Ask({ topup, offer, to, done }) {
  const [open, setOpen] = useState(false);
  const [destination, setDestination] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const [key, setKey] = useState(newKey);
  const field = FIELDS[to ?? ""];
  const sum = money(offer);
  /** @param {Event} event */
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    const body = { lot_id: offer.lot_id, credits: offer.credits, ...(field ? { destination: destination.trim() } : {}) };
    try {
      done(await api("POST", /** @type {"/v1/topups/{topup_id}/refund"} */ (`/v1/topups/${topup}/refund`), { body, key }));
    } catch (error) {
      setProblem(error instanceof Problem ? error.message : "That did not work. Please try again.");
      setKey(newKey());
    }
    setBusy(false);
  };
  if (!open) return html`<button type="button" class="button button-quiet" onClick=${() => setOpen(true)}><${Icon} name="undo" />Refund ${plural(offer.credits, "unused credit")}</button>`;
  return html`<form class="refund-ask" onSubmit=${send}>
    <h2>Refund ${sum}?</h2>
    <p>${plural(offer.credits, "credit")} that you have not used ${offer.credits === 1 ? "goes" : "go"} back, and ${sum} is sent ${to === "origin" ? "to where it came from" : "to you"}. You can ask for this until ${day(offer.until)}.</p>
    ${field && html`<div class="field"><label for="refund-to">${field.label}</label>
      <input id="refund-to" class="input mono" required minlength="6" maxlength="2000" autocomplete="off" spellcheck=${false} placeholder=${field.placeholder} value=${destination}
        onInput=${(/** @type {any} */ event) => setDestination(event.target.value)} aria-describedby="refund-to-hint" /><p id="refund-to-hint" class="hint">${field.hint(sum)}</p></div>`}
    ${problem && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem}</span></p>`}
    <div class="pay-buttons"><button type="submit" class="button button-primary" disabled=${busy}>${busy ? "Asking" : `Refund ${sum}`}</button>
      <button type="button" class="button" disabled=${busy} onClick=${() => setOpen(false)}>Keep the credits</button></div></form>`;
}

/** What was refunded of a top-up, and what can be. @param {{topup: import("../../api.d.ts").TopupOut}} props */
export function Refunds({ topup }) {
  const [found, setFound] = useState(/** @type {import("../../api.d.ts").RefundOffersOut | null} */ (null));
  const [answer, setAnswer] = useState(/** @type {Refund[]} */ ([]));
  const known = topup.refunds ?? answer;
  const stands = known.map((refund) => refund.state).join();
  useEffect(() => {
    let current = true;
    api("GET", /** @type {"/v1/topups/{topup_id}/refund"} */ (`/v1/topups/${topup.id}/refund`)).then(
      (offers) => { if (current) setFound(offers); },
      () => { if (current) setFound(null); });
    return () => { current = false; };
  }, [topup.id, topup.state, topup.credited, stands]);
  if (known.length === 0 && !found?.offers.length) return null;
  return html`<section class="refunds" aria-label="Refunds">
    ${known.length > 0 && html`<div role="status" class="refunds-known"><ul>${known.map((refund) => html`<${Known} key=${refund.id} refund=${refund} to=${found?.to ?? null} />`)}</ul></div>`}
    ${found?.offers.map((offer) => html`<${Ask} key=${offer.lot_id} topup=${topup.id} offer=${offer} to=${found.to}
      done=${(/** @type {import("../../api.d.ts").TopupOut} */ now) => { setAnswer(now.refunds ?? []); setFound({ ...found, offers: [] }); }} />`)}</section>`;
}

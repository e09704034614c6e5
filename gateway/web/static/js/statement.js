// One entry of the statement, in words.
import { moment, number } from "./money.js";
import { html, Icon } from "./ui.js";

/** @type {Record<string, {name: string, icon: string, tone: string, filter?: boolean, sign?: number}>} by the entry's kind */
export const KINDS = {
  granted: { name: "Credited", icon: "plus", tone: "good", filter: true },
  held: { name: "Held", icon: "clock", tone: "calm", filter: true },
  captured: { name: "Used", icon: "image", tone: "", filter: true },
  released: { name: "Given back", icon: "undo", tone: "good", filter: true },
  expired: { name: "Expired", icon: "clock", tone: "warn", filter: true },
  refunded: { name: "Refunded", icon: "back", tone: "", filter: true },
  reversed: { name: "Taken back", icon: "warn", tone: "bad", filter: true },
  debt: { name: "Owed", icon: "warn", tone: "bad" },
  merged: { name: "Brought along", icon: "plus", tone: "good" },
  adjusted: { name: "Adjusted", icon: "pen", tone: "" },
};

/** Event names of the ledger that say the same. @type {[RegExp, string][]} */
const ALIASES = [
  [/held|hold_opened/, "held"], [/captured/, "captured"], [/released|hold_expired/, "released"], [/expired/, "expired"],
  [/refund/, "refunded"], [/revers|revoked|disput/, "reversed"], [/debt/, "debt"], [/merge/, "merged"], [/adjust/, "adjusted"], [/grant/, "granted"],
];

/** @param {string} kind */
export function kindOf(kind) {
  const known = KINDS[kind] ? kind : ALIASES.find(([pattern]) => pattern.test(kind))?.[1];
  return known ? KINDS[known] : { name: kind.replaceAll("_", " "), icon: "info", tone: "" };
}

/** @param {any} about */
function link(about) {
  if (!about?.id) return null;
  if (about.type === "generation") return `/images/${about.id}`;
  if (about.type === "topup") return `/topups/${about.id}`;
  return null;
}

/** @param {number} credits */
const signed = (credits) => (credits > 0 ? `+${number(credits)}` : credits < 0 ? `−${number(-credits)}` : "0");

/** What happened to the credits, in one mark: a hold and its capture are not two debits. @param {any} entry @param {string} name */
function sum(entry, name) {
  const size = number(Math.abs(entry.credits));
  if (name === KINDS.held.name) return `${size} held`;
  if (name === KINDS.released.name) return `${size} back`;
  return signed(entry.credits);
}

/** @param {{entry: any, onReference?: (id: string) => void}} props */
export function Entry({ entry, onReference }) {
  const kind = kindOf(entry.kind);
  const target = link(entry.reference);
  const words = entry.description || kind.name;
  return html`<li class="entry">
    ${entry.image_url ? html`<a class="entry-thumb" href=${target ?? entry.image_url} aria-label="The image this paid for"><img src=${entry.image_url} alt="" loading="lazy" width="56" height="56" /></a>`
      : html`<span class=${`entry-mark ${kind.tone ? `entry-${kind.tone}` : ""}`} aria-hidden="true"><${Icon} name=${kind.icon} /></span>`}
    <div class="entry-words"><p><strong>${kind.name}</strong>${words !== kind.name && html`<span class="muted"> ${words}</span>`}</p>
      <p class="hint"><time datetime=${entry.at}>${moment(entry.at)}</time> · <span title="Place in the ledger">no. ${number(entry.position)}</span>
        ${target && html` · <a href=${target}>${entry.reference.type === "topup" ? "the top-up" : "the image"}</a>`}
        ${entry.reference?.id && onReference && html` · <button type="button" class="link-button" onClick=${() => onReference(entry.reference.id)}>all about it</button>`}</p></div>
    <div class="entry-sums num"><strong class=${entry.credits > 0 ? "entry-plus" : kind === KINDS.held ? "entry-held" : ""}>${sum(entry, kind.name)}</strong>
      <span class="hint">${number(entry.available_after)} available${entry.held_after ? `, ${number(entry.held_after)} held` : ""}</span></div>
  </li>`;
}

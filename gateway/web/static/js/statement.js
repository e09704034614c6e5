// One entry of the statement, in words.
import { api } from "./api.js";
import { moment, number } from "./money.js";
import { html, Icon } from "./ui.js";

const PAGE = 25;
const SEARCH_PAGE = 200;
const SEARCH_PAGES_MAX = 10;

/**
 * A page of the statement, newest first. About one thing only: as many pages as it takes, within reason.
 * @param {{cursor?: string | null, type?: string, reference?: string}} wanted
 * @returns {Promise<{entries: import("../../api.d.ts").EntryOut[], next: string | null}>}
 */
export async function readStatement({ cursor = null, type = "all", reference = "" }) {
  const found = [];
  let next = cursor;
  for (let pages = 0; pages < SEARCH_PAGES_MAX; pages += 1) {
    const params = new URLSearchParams({ limit: String(reference ? SEARCH_PAGE : PAGE) });
    if (next) params.set("cursor", next);
    if (type !== "all") params.set("type", type);
    if (reference) params.set("reference", reference);
    const page = await api("GET", `/v1/statement?${params}`);
    const fitting = reference ? page.entries.filter((entry) => entry.reference?.id === reference) : page.entries;
    found.push(...fitting);
    next = page.next_cursor ?? null;
    // Entries of one thing lie close together: past the last of them there are no more.
    if (!reference || !next || (found.length > 0 && fitting.length < page.entries.length)) break;
  }
  return { entries: found, next: reference ? null : next };
}

/** @type {Record<string, {name: string, icon: string, tone: string}>} by the entry's kind */
const KINDS = {
  granted: { name: "Credited", icon: "plus", tone: "good" },
  held: { name: "Held", icon: "clock", tone: "calm" },
  captured: { name: "Used", icon: "image", tone: "" },
  released: { name: "Given back", icon: "undo", tone: "good" },
  hold_expired: { name: "Given back", icon: "undo", tone: "good" },
  lapsed: { name: "Lapsed", icon: "clock", tone: "warn" },
  refund_opened: { name: "Refund under way", icon: "back", tone: "calm" },
  refund_sent: { name: "Refunded", icon: "back", tone: "" },
  refund_failed: { name: "Refund failed", icon: "undo", tone: "warn" },
  reversed: { name: "Taken back", icon: "warn", tone: "bad" },
  debt_incurred: { name: "Owed", icon: "warn", tone: "bad" },
  debt_repaid: { name: "Debt paid", icon: "check", tone: "good" },
  debt_forgiven: { name: "Debt forgiven", icon: "check", tone: "good" },
  withdrawn: { name: "Withdrawn", icon: "pen", tone: "" },
  moved_out: { name: "Moved out", icon: "open", tone: "" },
  moved_in: { name: "Brought along", icon: "plus", tone: "good" },
};

/** @param {string} kind */
const kindOf = (kind) => KINDS[kind] ?? { name: kind.replaceAll("_", " "), icon: "info", tone: "" };

/** @param {import("../../api.d.ts").ReferenceOut} about */
function link(about) {
  if (!about?.id) return null;
  if (about.type === "generation") return `/images/${about.id}`;
  if (about.type === "topup") return `/topups/${about.id}`;
  return null;
}

/** @param {number} credits */
const signed = (credits) => (credits > 0 ? `+${number(credits)}` : credits < 0 ? `−${number(-credits)}` : "0");

/** What happened to the credits, in one mark: a hold and its capture are not two debits. @param {import("../../api.d.ts").EntryOut} entry @param {string} name */
function sum(entry, name) {
  const size = number(Math.abs(entry.credits));
  if (name === KINDS.held.name) return `${size} held`;
  if (name === KINDS.released.name) return `${size} back`;
  return signed(entry.credits);
}

/** @param {{entry: import("../../api.d.ts").EntryOut, onReference?: (id: string) => void}} props */
export function Entry({ entry, onReference }) {
  const kind = kindOf(entry.kind);
  const target = link(entry.reference);
  const words = entry.description || kind.name;
  return html`<li class="entry">
    ${entry.image_url ? html`<a class="entry-thumb" href=${target ?? entry.image_url} aria-label="The image this paid for"><img src=${entry.thumbnail_url ?? entry.image_url} alt="" loading="lazy" width="56" height="56" /></a>`
      : html`<span class=${`entry-mark ${kind.tone ? `entry-${kind.tone}` : ""}`} aria-hidden="true"><${Icon} name=${kind.icon} /></span>`}
    <div class="entry-words"><p><strong>${kind.name}</strong>${words !== kind.name && html`<span class="muted"> ${words}</span>`}</p>
      <p class="hint"><time datetime=${entry.at}>${moment(entry.at)}</time> · <span title="Place in the ledger">no. ${number(entry.position)}</span>
        ${target && html` · <a href=${target}>${entry.reference.type === "topup" ? "the top-up" : "the image"}</a>`}
        ${entry.reference?.id && onReference && html` · <button type="button" class="link-button" onClick=${() => onReference(entry.reference.id)}>all about it</button>`}</p></div>
    <div class="entry-sums num"><strong class=${entry.credits > 0 ? "entry-plus" : kind === KINDS.held ? "entry-held" : ""}>${sum(entry, kind.name)}</strong>
      <span class="hint">${number(entry.available_after)} available${entry.held_after ? `, ${number(entry.held_after)} held` : ""}</span></div>
  </li>`;
}

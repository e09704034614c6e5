// What every page knows: the account, the payment methods, and whether there is a network.
import { computed, signal } from "@preact/signals";
import { api, newKey } from "./api.js";
import { on, startEvents } from "./events.js";
import { belongs, isOthers, recall, remember } from "./kept.js";
import { learnScales } from "./money.js";

/** @type {import("@preact/signals").Signal<(import("../../api.d.ts").AccountStateOut & Partial<import("../../api.d.ts").AccountOut>) | null>} the answer of GET /v1/account, or null */
export const account = signal(null);
/** @type {import("@preact/signals").Signal<import("../../api.d.ts").RailsOut | null>} the answer of GET /v1/rails, or null */
export const rails = signal(null);
/** @type {import("@preact/signals").Signal<(import("../../api.d.ts").SessionOut | {kind: "visitor", email: null, sign_in: null, mails_links: false}) | null>} the answer of GET /v1/session, or null */
export const session = signal(null);
export const online = signal(navigator.onLine);

addEventListener("online", () => { online.value = true; });
addEventListener("offline", () => { online.value = false; });

/** @param {import("../../api.d.ts").LotOut} lot */
export const isFree = (lot) => lot.source === "allowance";
/** @param {import("../../api.d.ts").LotOut} lot */
const isLive = (lot) => !lot.expires_at || new Date(lot.expires_at) > new Date();

/** Credits in hand, of them free today, and whether four fifths are gone. */
export const balance = computed(() => {
  const now = account.value;
  if (!now) return null;
  const available = now.credits.available;
  const lots = (now.lots ?? []).filter(isLive);
  const free = now.free_today?.left ?? 0;
  const granted = lots.reduce((/** @type {number} */ sum, lot) => sum + lot.granted, 0);
  return {
    available,
    free: Math.min(free, available),
    paid: Math.max(0, available - free),
    debt: now.credits.debt ?? 0,
    low: available > 0 && granted > 0 && available * 5 <= granted,
    empty: available <= 0,
  };
});

/**
 * Shows what was asked for last, though answers come in any order: call it when asking, and what it returns with the answer.
 * @template T
 * @param {import("@preact/signals").Signal<T>} target
 * @returns {() => (value: T) => void}
 */
export function latest(target) {
  let asked = 0;
  let shown = 0;
  return () => {
    const turn = ++asked;
    return (value) => {
      if (turn < shown) return;
      shown = turn;
      target.value = value;
    };
  };
}

const askAccount = latest(account);
const askSession = latest(session);

export async function loadAccount() {
  const now = await readAccount();
  // It may be of before somebody signed in, in another tab: nothing is forgotten before it was asked once more.
  belongs(isOthers(now) ? await readAccount() : now);
}

/** Returns whose browser this is: the id of a person's account, or "" of a guest. */
export async function readAccount() {
  const show = askAccount();
  const now = await api("GET", "/v1/account");
  show(now);
  return now.person.kind === "person" ? now.id : "";
}

export async function loadRails() {
  const answer = await api("GET", "/v1/rails");
  learnScales(answer.rails);
  rails.value = answer;
}

export async function loadSession() {
  const show = askSession();
  show(await api("GET", "/v1/session").catch(() => ({ kind: "visitor", email: null, sign_in: null, mails_links: false })));
}

let starting = /** @type {Promise<void> | null} */ (null);
/** Read the account, then listen. Called by every page; does its work once. */
export function start() {
  starting ??= (async () => {
    await loadAccount().catch(() => {});
    startEvents();
    on("account", (data) => {
      if (data?.credits && data?.lots) askAccount()(data);
      else loadAccount().catch(() => {});
    });
    on("closed", () => loadAccount().catch(() => {}));
    on("open", () => {
      loadAccount().catch(() => {});
      if (session.value) loadSession();
    });
    addEventListener("online", () => loadAccount().catch(() => {}));
  })();
  return starting;
}

/** One top-up at a time: what opens the modal, and for which reason. */
export const topupRequest = signal(/** @type {null | {id?: string, reason?: string, credits?: number, buy?: import("./catalogue.js").Buy, alone?: import("./topup.js").Alone, onPaid?: () => void}} */ (null));

export { newKey, recall, remember };

// The top-up: amount, payment method, payment, result. One component, in a modal or on its own page.
import { useEffect, useRef, useState } from "preact/hooks";
import { heldPrice, Offer } from "./alone_pay.js";
import { api, newKey, Problem } from "./api.js";
import { buyAgain, buyPack, catalogue, loadCatalogue } from "./catalogue.js";
import { on, poll, stream } from "./events.js";
import { money, number, plural } from "./money.js";
import { keepRecovery } from "./recovery.js";
import { loadAccount, loadRails, online, balance, rails, topupRequest } from "./store.js";
import { Pay } from "./topup_pay.js";
import { settled } from "./topup_state.js";
import { html, Icon, Modal, toast } from "./ui.js";

const SLOW_MS = 3_000;

/** @typedef {import("./catalogue.js").Buy} Buy */

/**
 * Whose top-up this is: how one is read and opened, what follows when it is paid, and what is said where none is found.
 * @typedef {{read: (id: string) => Promise<import("../../api.d.ts").TopupOut>,
 *   open: (body: any) => Promise<import("../../api.d.ts").TopupOut>,
 *   paid: () => void, byLink: boolean, unknown: string}} Source
 */

/**
 * Paying for the picture that waits alone: what that costs, and how it is asked for.
 * @typedef {{prices: import("../../api.d.ts").ImagePriceOut[], pay: (way: {rail: string, asset: string}) => Promise<void>}} Alone
 */

/** This browser's own account. @type {Source} */
const OWN = {
  read: (id) => api("GET", /** @type {"/v1/topups/{topup_id}"} */ (`/v1/topups/${id}`)),
  open: (body) => api("POST", "/v1/topups", { body, key: newKey() }),
  paid: () => { loadAccount().catch(() => {}); },
  byLink: false,
  unknown: "It belongs to another browser or account, or the address is wrong.",
};

/** @param {number} cents */
const usd = (cents) => `$${Math.trunc(cents / 100)}.${String(cents % 100).padStart(2, "0")}`;

/** Every payment method, one per asset. @param {import("../../api.d.ts").RailsOut} offer */
export function ways(offer) {
  return offer.rails.flatMap((rail) => rail.assets.map((one) => ({
    rail: rail.name, asset: one.asset, open: rail.open && one.open !== false, reason: rail.reason,
    label: rail.assets.length > 1 ? one.asset : rail.label,
    hint: `${HINTS[one.asset] ?? rail.label} · from ${money({ amount_minor: one.minimum_minor, asset: one.asset })}${rail.tax_on_top ? " · plus tax" : ""}`,
    icon: ICONS[one.asset] ?? "dollar",
  })));
}
/** @type {Record<string, string>} */
const HINTS = { USD: "credit or debit", BTC: "Bitcoin, in seconds", USDT: "dollars on Liquid", "L-BTC": "bitcoin on Liquid" };
/** @type {Record<string, string>} */
const ICONS = { USD: "card", BTC: "bolt", USDT: "dollar", "L-BTC": "drop" };

/** @param {{offer: import("../../api.d.ts").RailsOut, credits: number, choose: (credits: number) => void}} props */
function Amounts({ offer, credits, choose }) {
  const fits = offer.packs.some((pack) => pack.credits === credits);
  const [own, setOwn] = useState(fits ? "" : String(credits));
  const unit = offer.packs[0] ? offer.packs[0].usd_minor / offer.packs[0].credits : 1;
  return html`<fieldset class="amounts"><legend class="label">How many images?</legend>
    ${offer.packs.map((pack) => html`<label class="amount">
      <input type="radio" name="amount" value=${pack.credits} checked=${credits === pack.credits && own === ""} onChange=${() => { setOwn(""); choose(pack.credits); }} />
      <span class="amount-count num">${plural(pack.credits, "image")}</span><span class="amount-price num">${usd(pack.usd_minor)}</span></label>`)}
    <label class="amount amount-own" data-on=${own !== ""}><span class="amount-count">Other</span>
      <input class="input num" inputmode="numeric" pattern="[0-9]*" maxlength="6" placeholder="250" aria-label="Other number of images" value=${own}
        onInput=${(/** @type {any} */ event) => { const digits = event.target.value.replace(/\D/g, ""); setOwn(digits); choose(Number(digits) || 0); }} />
      ${own !== "" && Number(own) > 0 && html`<span class="amount-price num">${usd(Math.ceil(Number(own) * unit))}</span>`}</label>
  </fieldset>`;
}

/** What a refusal says, with the least amount where that is what it is about. @param {Problem} problem */
const said = (problem) => (problem.code === "amount_too_small" ? `${problem.message} It is ${money({ amount_minor: problem.body.minimum_minor, asset: problem.body.asset })}.` : problem.message);

/** What is bought, in place of a number of images. @param {{buy: Buy}} props */
const Bought = ({ buy }) => html`<div class="bought"><p class="bought-title">${buy.title}</p><p class="bought-price num">${usd(buy.usd_minor)}</p>
  ${buy.detail && html`<p class="hint">${buy.detail}</p>`}</div>`;

/** What else helps where a picture waits. @param {{setBuy: (buy: Buy) => void, alone?: Alone}} props */
function Instead({ setBuy, alone }) {
  useEffect(() => { if (!catalogue.value) loadCatalogue().catch(() => {}); }, []);
  const known = catalogue.value;
  const single = (alone?.prices ?? []).filter((price) => !price.held);
  if (!known) return null;
  return html`<div class="instead"><p class="label">Or instead</p><div class="pay-buttons">
    <a class="button" href="/plans">A plan, from ${usd(Math.min(...known.plans.filter((plan) => plan.price_usd_minor > 0).map((plan) => plan.price_usd_minor)))} a month</a>
    ${single.length > 0 && html`<button type="button" class="button" onClick=${() => setBuy({ body: /** @type {any} */ ({}), title: "Just this image", detail: "It is painted once you have paid. If it does not come, the money stays yours as a credit.", usd_minor: 1, prices: single })}>Just this image</button>`}
    ${known.packs.filter((pack) => pack.kind === "pass").slice(0, 1).map((pack) => html`<button type="button" class="button" onClick=${() => setBuy(buyPack(pack))}>${pack.label}, ${usd(pack.price_usd_minor)}</button>`)}</div></div>`;
}

/**
 * @param {{reason?: string, credits: number, setCredits: (credits: number) => void, pick: (way: any) => void, problem: any,
 *   buy: Buy | null, setBuy: (buy: Buy | null) => void, alone?: Alone, fixed: boolean}} props
 */
function Choose({ reason, credits, setCredits, pick, problem, buy, setBuy, alone, fixed }) {
  const offer = rails.value;
  if (!offer) return html`<div class="skeleton skeleton-tall"></div>`;
  const enough = buy !== null || credits >= 1;
  const held = alone && !buy ? heldPrice(alone.prices) : undefined;
  /** @param {any} way */
  const price = (way) => buy?.prices?.find((one) => one.rail === way.rail && one.asset === way.asset);
  return html`<div class="choose">
    ${reason === "picture" && html`<p class="note note-calm"><${Icon} name="spark" /><span><strong>Your picture is waiting.</strong> It is painted by itself once you have paid.</span></p>`}
    ${problem && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem}</span></p>`}
    ${held && html`<${Offer} price=${held} pay=${() => alone?.pay(held)} /><p class="label or">Or buy credits, and it is painted by itself</p>`}
    ${buy ? html`<${Bought} buy=${buy} />` : html`<${Amounts} offer=${offer} credits=${credits} choose=${setCredits} />`}
    <div class="ways" role="group" aria-labelledby="ways-title"><p id="ways-title" class="label">Pay with</p>
      ${ways(offer).map((way) => {
        const costs = price(way);
        const little = way.open && buy?.prices && !costs;
        return html`<button type="button" class="way" disabled=${!way.open || !enough || little} onClick=${() => pick(way)}>
        <${Icon} name=${way.icon} /><span class="way-words"><span class="way-label">${way.label}</span><span class="hint">${little ? "Not for this sum" : way.open ? way.hint : way.reason ?? "Closed just now"}</span></span>
        <span class="way-arrow num">${costs ? money(costs) : html`<span aria-hidden="true">→</span>`}</span></button>`;
      })}
    </div>
    ${buy && !fixed && html`<button type="button" class="button button-quiet" onClick=${() => setBuy(null)}><${Icon} name="back" />Choose a number of images</button>`}
    ${!buy && reason && html`<${Instead} setBuy=${setBuy} alone=${alone} />`}
    <p class="hint">Images that fail, are cancelled or are blocked cost nothing.</p></div>`;
}

/** @param {{way: any, back: () => void}} props */
function Opening({ way, back }) {
  const [slow, setSlow] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setSlow(true), SLOW_MS);
    return () => clearTimeout(timer);
  }, []);
  return html`<div class="opening" aria-busy="true"><p class="visually-hidden" role="status">Opening ${way.label}</p>
    <div class="skeleton qr-skeleton"></div><div class="skeleton line-skeleton"></div>
    ${slow && html`<div class="note note-warn" role="status"><${Icon} name="clock" /><span><strong>${way.label} is slow today.</strong> Still trying; nothing is charged yet.</span></div>
      <button type="button" class="button button-wide" onClick=${back}>Pay another way</button>`}</div>`;
}

/** Keep a top-up current: by the stream, or by asking. @param {string | undefined} id @param {import("../../api.d.ts").TopupOut | null} first @param {Source} source */
function useTopup(id, first, source) {
  const [topup, setTopup] = useState(first ?? null);
  const [missing, setMissing] = useState(/** @type {any} */ (null));
  const over = useRef(false);
  over.current = topup !== null && settled(topup);
  useEffect(() => {
    if (!id) {
      setTopup(null);
      return undefined;
    }
    let current = true;
    // An answer that was asked for before the newest news would turn a paid top-up back into a waiting one.
    let asked = 0;
    let newest = 0;
    const read = () => {
      const mine = ++asked;
      return source.read(id).then(
        (answer) => { if (current && mine > newest) { newest = mine; setTopup(answer); setMissing(null); } },
        (error) => { if (current && error instanceof Problem && error.status !== 0) setMissing(error); });
    };
    if (first?.id === id) setTopup(first);
    else {
      setTopup(null);
      read();
    }
    // A stream may be open and silent: whoever waits for a payment asks every two seconds all the same.
    const off = [on("open", read), poll(() => online.value && !document.hidden && !over.current && read(), { quick: 2_000, slow: 2_000 }),
      on("topup", (data) => {
        if (data.id !== id) return;
        newest = asked;
        if (data.amount_due && data.instructions && data.received) setTopup((old) => ({ ...old, ...data }));
        else if (data.state) setTopup((old) => (old ? { ...old, state: data.state } : old));
        read();
      })];
    return () => { current = false; for (const stop of off) stop(); };
  }, [id]);
  return { topup, missing };
}

/**
 * @param {{id?: string, reason?: string, credits?: number, buy?: Buy, alone?: Alone, page?: boolean, source?: Source,
 *   onPaid?: () => void, onClose?: () => void, onId?: (id: string | null) => void}} props
 */
export function TopUp({ id: firstId, reason, credits: wanted, buy: first, alone, page, source = OWN, onPaid, onClose, onId }) {
  const [buy, setBuy] = useState(/** @type {Buy | null} */ (first ?? null));
  const [id, setId] = useState(firstId);
  const [fresh, setFresh] = useState(/** @type {any} */ (null));
  const [credits, setCredits] = useState(wanted ?? 100);
  const [way, setWay] = useState(/** @type {any} */ (null));
  const [problem, setProblem] = useState(/** @type {string | null} */ (null));
  const attempt = useRef(0);
  const latest = useRef(/** @type {(way: any) => void} */ (() => {}));
  const { topup, missing } = useTopup(id, fresh, source);
  useEffect(() => { if (!rails.value) loadRails().catch((error) => setProblem(error.message)); }, []);
  useEffect(() => {
    if (topup?.state !== "paid") return;
    source.paid();
    onPaid?.();
  }, [topup?.state]);

  const again = () => { attempt.current += 1; if (source.byLink) onId?.(null); setId(undefined); setFresh(null); setWay(null); setProblem(null); if (topup?.purchase) setBuy(buyAgain(topup.purchase)); else if (topup?.credits) setCredits(topup.credits); };
  /** @param {any} choice */
  const pick = async (choice) => {
    const mine = ++attempt.current;
    setProblem(null);
    setWay(choice);
    try {
      if (alone && buy && Object.keys(buy.body).length === 0) {
        await alone.pay(choice);
        return;
      }
      const answer = await source.open({ rail: choice.rail, pay_asset: choice.asset, ...(buy ? buy.body : { credits }) });
      if (mine !== attempt.current) return;
      keepRecovery(answer.recovery_code);
      setFresh(answer);
      setId(answer.id);
      onId?.(answer.id);
      if (answer.instructions?.kind === "redirect" && answer.instructions.url) location.assign(answer.instructions.url);
    } catch (error) {
      if (mine !== attempt.current) return;
      setWay(null);
      if (error instanceof Problem && error.code === "rail_closed") loadRails().catch(() => {});
      setProblem(error instanceof Problem ? said(error) : "That did not work. Please try again.");
    }
  };
  // After the next render: what is picked then knows what is bought again.
  latest.current = pick;
  const requote = () => {
    if (!topup) return;
    const offer = rails.value && ways(rails.value).find((one) => one.rail === topup.rail && one.asset === topup.amount_due.asset && one.open);
    const amount = topup.credits;
    const same = topup.purchase ? buyAgain(topup.purchase) : null;
    again();
    if (amount && !same) setCredits(amount);
    if (offer) setTimeout(() => latest.current(offer));
  };

  // A wallet that did not come back may have paid or not: what is closed can be paid no more, and then a new one may be shown.
  const renew = async () => {
    if (!topup) return;
    const closed = source.byLink ? null : await api("POST", /** @type {"/v1/topups/{topup_id}/cancel"} */ (`/v1/topups/${topup.id}/cancel`)).catch(() => undefined);
    if (closed === undefined) toast("The wallet did not answer, and neither does the payment node. Look here again before you pay anything.");
    else if (closed === null || closed.state === "expired") {
      toast(closed ? "The wallet did not answer. Here is a new invoice; the old one is closed." : "The wallet did not answer. Here is a new invoice.");
      requote();
    }
  };

  if (missing && !topup) return html`<div class="choose"><p class="note note-bad" role="alert"><${Icon} name="warn" /><span><strong>This top-up cannot be shown.</strong>${missing.status === 404 ? source.unknown : missing.message}</span></p>
    <button type="button" class="button" onClick=${again}>Start a new one</button></div>`;
  if (topup?.generation_id) {
    location.replace(`/images/${topup.generation_id}`);
    return html`<div class="skeleton skeleton-tall"></div>`;
  }
  if (id) {
    if (!topup) return html`<${Opening} way=${{ label: "This payment" }} back=${again} />`;
    return html`<${Pay} topup=${topup} returned=${Boolean(page) && !fresh} waitingPicture=${reason === "picture"} again=${again} requote=${requote} renew=${renew} onClose=${onClose}
      byLink=${source.byLink} connection=${online.value ? (source.byLink ? "live" : stream.value) : "offline"} balance=${balance.value ? number(balance.value.available) : null} />`;
  }
  if (way) return html`<${Opening} way=${way} back=${again} />`;
  return html`<${Choose} reason=${reason} credits=${credits} setCredits=${setCredits} pick=${pick} problem=${problem} buy=${buy} setBuy=${setBuy} alone=${alone} fixed=${Boolean(first)} />`;
}

/** @param {{id?: string, reason?: string, credits?: number, buy?: Buy, alone?: Alone, onPaid?: () => void}} props */
export function TopUpModal(props) {
  const home = useRef(location.href);
  const close = () => {
    if (location.href !== home.current) history.replaceState(null, "", home.current);
    topupRequest.value = null;
  };
  useEffect(() => {
    addEventListener("popstate", close);
    return () => removeEventListener("popstate", close);
  }, []);
  return html`<${Modal} title=${props.buy ? "Pay" : "Top up"} onClose=${close} class="topup-modal">
    <${TopUp} ...${props} onClose=${close} onId=${(/** @type {string} */ id) => history.replaceState(null, "", `/topups/${id}`)} /></${Modal}>`;
}

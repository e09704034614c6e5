// Where the rails' books and ours differ, and how far each rail was compared.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { money, moment, number } from "./money.js";
import { html, Icon, toast } from "./ui.js";

/** @typedef {import("../../api.d.ts").DifferenceOut} Difference */
/** @typedef {import("../../api.d.ts").RailComparedOut} Compared */

const found = signal(/** @type {import("../../api.d.ts").DifferencesOut | null} */ (null));
const closed = signal(false);
const problem = signal("");

/** @type {Record<Difference["reason"], string>} */
const REASONS = { missing_here: "missing in our books", missing_there: "missing at the rail", amount_differs: "the amount differs", fee_differs: "the fee differs", currency_differs: "another currency" };
/** @type {Record<Difference["part"], string>} */
const PARTS = { received: "received", taken_back: "refunded or withdrawn", fee: "fee", costs: "other costs", paid_out: "payout", balance: "balance" };

/** @param {() => Promise<void>} work */
async function guarded(work) {
  problem.value = "";
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem.value = error.message;
  }
}

/** @param {boolean} next */
const read = (next) => guarded(async () => {
  const params = new URLSearchParams({ limit: "50", closed: String(closed.value) });
  if (next && found.value?.next_before) params.set("before", String(found.value.next_before));
  const page = await api("GET", /** @type {"/v1/operator/differences"} */ (`/v1/operator/differences?${params}`));
  found.value = next && found.value ? { ...page, differences: [...found.value.differences, ...page.differences] } : page;
});

const compare = () => guarded(async () => {
  const { rails } = await api("POST", "/v1/operator/differences", { body: {} });
  toast(rails.length ? "Comparing now. Look again in a minute." : "No rail here tells its own books.");
  await read(false);
});

/** @param {number | null} minor @param {string} asset */
const side = (minor, asset) => (minor === null ? "nothing" : money({ amount_minor: minor, asset }));

/** @param {{name: string, children?: any}} props */
const Fact = ({ name, children }) => html`<div><dt>${name}</dt><dd>${children}</dd></div>`;

/** @param {{one: Difference}} props */
const Row = ({ one }) => html`<li class="card op-row"><dl class="op-facts">
  <${Fact} name="What"><strong>${REASONS[one.reason]}</strong> (${PARTS[one.part]})<//><${Fact} name="Our books"><strong class="num">${side(one.ours_minor, one.asset)}</strong><//>
  <${Fact} name="The rail"><strong class="num">${side(one.theirs_minor, one.asset)}</strong><//><${Fact} name="Rail">${one.rail}<//><${Fact} name="Since">${moment(one.opened_at)}<//>
  ${one.closed_at && html`<${Fact} name="Agreed">${moment(one.closed_at)}<//>`}
  ${one.payment_id && html`<${Fact} name="Payment"><a class="mono" href=${`#${one.payment_id}`}>${one.payment_id}</a><//>`}<${Fact} name="Name"><span class="mono">${one.subject}</span><//></dl></li>`;

/** @param {{one: Compared}} props */
const Rail = ({ one }) => html`<li class="card op-row"><dl class="op-facts"><${Fact} name="Rail"><strong>${one.rail}</strong><//>
  <${Fact} name="Compared">${one.compared_at ? moment(one.compared_at) : "never yet"}<//><${Fact} name="Next">${moment(one.due_at)}<//><${Fact} name="Differences"><strong class="num">${number(one.open)}</strong><//>
  ${one.last_problem && html`<${Fact} name="Problem">${one.last_problem}<//>`}</dl></li>`;

export function Books() {
  useEffect(() => { read(false); }, []);
  const now = found.value;
  const show = (/** @type {boolean} */ which) => { closed.value = which; read(false); };
  return html`${problem.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem.value}</span></p>`}
    ${now === null ? html`<div class="skeleton skeleton-tall"></div>` : html`
    <section class="op-section" aria-labelledby="op-rails"><h2 id="op-rails">Rails</h2>
      ${now.rails.length === 0 ? html`<p class="muted">No rail has been compared yet.</p>` : html`<ul class="op-list">${now.rails.map((one) => html`<${Rail} key=${one.rail} one=${one} />`)}</ul>`}
      <div class="actions-row"><button type="button" class="button" onClick=${compare}>Compare now</button></div></section>
    <section class="op-section" aria-labelledby="op-differences"><h2 id="op-differences">Differences ${now.differences.length > 0 && html`<span class="tag">${number(now.differences.length)}${now.next_before ? "+" : ""}</span>`}</h2>
      <p class="muted">Each night the books of the rails are read and compared with ours. A difference closes by itself when both agree; nothing is corrected here.</p>
      <div class="actions-row"><button type="button" class="button" aria-pressed=${!closed.value} onClick=${() => show(false)}>Open</button><button type="button" class="button" aria-pressed=${closed.value} onClick=${() => show(true)}>Closed</button></div>
      ${now.differences.length === 0 ? html`<p class="muted">${closed.value ? "None was ever closed." : "Nothing differs."}</p>` : html`<ul class="op-list">${now.differences.map((one) => html`<${Row} key=${one.id} one=${one} />`)}</ul>`}
      ${now.next_before && html`<button type="button" class="button button-wide" onClick=${() => read(true)}>Show earlier differences</button>`}</section>`}`;
}

// A top-up by a link, for an account that need not be this browser's. The token is behind the #: no request for a page has it.
import { useEffect, useMemo, useState } from "preact/hooks";
import { api, newKey, Problem } from "./api.js";
import { recallHere, rememberHere } from "./kept.js";
import { moment, plural } from "./money.js";
import { mount } from "./shell.js";
import { online, rails } from "./store.js";
import { TopUp } from "./topup.js";
import { html, Icon } from "./ui.js";

// A card page leads back here without the token, which is not its business.
const payment = new URLSearchParams(location.search).get("payment");
const token = location.hash.slice(1) || (payment && recallHere(`link:${payment}`)) || "";

/** The address under which a reload, and Back, go on where this is. @param {string | null} id */
function show(id) {
  history.replaceState(null, "", `/topup${id ? `?payment=${id}` : ""}#${token}`);
  if (id) rememberHere(`link:${id}`, token);
}

/** @param {() => void} paid @returns {import("./topup.js").Source} */
const sourceOf = (paid) => ({
  read: (id) => api("GET", /** @type {"/v1/topup-link/topups/{topup_id}"} */ (`/v1/topup-link/topups/${id}`), { token }),
  open: (body) => api("POST", "/v1/topup-link/topups", { token, body, key: newKey() }).catch((error) => {
    if (!(error instanceof Problem) || error.code !== "too_many_open_payments") throw error;
    throw new Problem(error.status, { ...error.body, detail: "As many payments as links may open for this account wait to be paid. Pay one of them, or try again in a while." });
  }),
  paid,
  byLink: true,
  unknown: "It was opened by another link.",
});

/** What is said instead of a top-up. @param {string} code @returns {[string, string]} */
function refusal(code) {
  if (code === "topup_link_expired") return ["This link has ended", "Links work for a day. The program that gave you this one gets a new one when it asks for an image again."];
  if (code === "no_link") return ["Open the link once more", "It is known only in the window where it was opened first. If you have paid, the credits are added by themselves: go back to your program."];
  return ["This link does not work", "It may have been cut off when it was copied, or come from somewhere else. Copy all of it, to the last sign, or ask the program for a new one."];
}

/** @param {{code: string}} props */
function Refused({ code }) {
  const [title, text] = refusal(code);
  return html`<p class="note note-warn" role="alert"><${Icon} name="warn" /><span><strong>${title}.</strong> ${text}</span></p>
    ${code !== "no_link" && html`<p class="hint">Nothing was charged, and nothing is lost.</p>`}`;
}

/** @param {{link: import("../../api.d.ts").TopupLinkOut}} props */
function Purpose({ link }) {
  const lacks = link.missing_credits > 0
    ? html`It needs <strong class="num">${plural(link.missing_credits, "more credit")}</strong> for the image that a program asked for.`
    : html`It has enough credits now for the image that a program asked for.`;
  return html`<p class="link-purpose">For the account ending in <strong class="mono">${link.account}</strong>. ${lacks}</p>`;
}

/** The smallest pack that is enough. @param {import("../../api.d.ts").TopupLinkOut} link */
function amount(link) {
  const packs = (rails.value?.packs ?? []).map((pack) => pack.credits).sort((one, other) => one - other);
  return packs.find((credits) => credits >= link.missing_credits) ?? Math.max(100, link.missing_credits);
}

function Page() {
  const [link, setLink] = useState(/** @type {import("../../api.d.ts").TopupLinkOut | null} */ (null));
  const [problem, setProblem] = useState(/** @type {Problem | null} */ (null));
  const [shown, setShown] = useState(payment);
  const follow = (/** @type {string | null} */ id) => { show(id); setShown(id); };
  const read = () => api("GET", "/v1/topup-link", { token }).then(
    (answer) => { setLink(answer); setProblem(null); },
    (error) => { if (error instanceof Problem) setProblem(error); });
  const source = useMemo(() => sourceOf(read), []);
  useEffect(() => { if (token) read(); }, [online.value]);
  const ended = problem?.code === "topup_link_expired";
  if (!token || problem?.code === "topup_link_not_valid") return html`<${Refused} code=${payment && !token ? "no_link" : "topup_link_not_valid"} />`;
  // What was opened in time may still be on its way.
  if (ended && !shown) return html`<${Refused} code="topup_link_expired" />`;
  // What is being paid stays while the server does not answer.
  if (problem && !ended && !link) return html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${problem.message}</span></p>
    <button type="button" class="button" onClick=${read}>Try again</button>`;
  if (!link && !ended) return html`<div class="skeleton skeleton-tall"></div>`;
  return html`${link && html`<${Purpose} link=${link} />`}
    <${TopUp} id=${payment ?? undefined} page credits=${link ? amount(link) : undefined} source=${source} onId=${follow} />
    <p class="hint link-note">Whoever has this link can add credits to the account, and see nothing else of it.${link && ` It works until ${moment(link.expires_at)}.`}</p>`;
}

// Another link, opened in this tab, differs in nothing but what follows the #: the browser loads nothing by itself.
addEventListener("hashchange", () => location.reload());
if (token) show(payment);
mount(html`<h1>Top up an account</h1><div class="card topup-card link-page"><${Page} /></div>`, "topup");

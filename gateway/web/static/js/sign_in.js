// Signing in, and bringing a guest's credits along.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { pauseEvents, restartEvents } from "./events.js";
import { belongs, leave } from "./kept.js";
import "./leaving.js"; // here, so that no network can keep it from us later
import { plural } from "./money.js";
import { mount } from "./shell.js";
import { loadSession, readAccount, session, start } from "./store.js";
import { html, Icon, toast } from "./ui.js";

const busy = signal("");
const wrong = signal("");
/** The address to which a link is on its way, and for how many minutes it works. */
const mailed = signal(/** @type {{to: string, minutes: number} | null} */ (null));
/** What a mailed link brought along behind its #, until it is used. */
const link = signal(location.pathname === "/sign-in" ? location.hash.slice(1) : "");

/**
 * @param {string} name
 * @param {() => Promise<any>} work
 * @param {() => void} done
 */
async function run(name, work, done) {
  busy.value = name;
  wrong.value = "";
  pauseEvents();
  let gone = false;
  let here = /** @type {string | null} */ (null);
  try {
    const answer = await work();
    const brought = answer?.merged?.credits;
    toast(brought ? `${plural(brought, "credit")} came along.` : name === "out" ? "Signed out." : "Done.");
    const [now] = await Promise.all([readAccount().catch(() => null), loadSession()]);
    here = now;
    done();
    if (name === "out") gone = true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (name === "out" && error.status === 401) gone = true; // it had been ended elsewhere
    wrong.value = error.status === 429 ? "Too many tries. Wait a little." : error.message;
    if (error.code === "sign_in_link_not_valid") forgetLink();
  } finally {
    restartEvents(); // not before reading the account has made this browser somebody
  }
  if (gone) leave();
  else if (here !== null) belongs(here);
  busy.value = "";
}

/** It works once, and a reload should not try it again. */
function forgetLink() {
  link.value = "";
  history.replaceState(null, "", "/sign-in");
}

/** @param {string} email */
async function mailLink(email) {
  busy.value = "link";
  wrong.value = "";
  try {
    const answer = await api("POST", "/v1/session/links", { body: { email } });
    mailed.value = { to: email, minutes: Math.round(answer.lasts_seconds / 60) };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    wrong.value = error.status === 429 ? "Too many links were asked for. Wait a little." : error.message;
  }
  busy.value = "";
}

/** Whom the mailed link would sign in. */
const whom = signal("");

/** @param {unknown} error */
function notThis(error) {
  if (!(error instanceof Problem)) throw error;
  wrong.value = error.message;
  if (error.code === "sign_in_link_not_valid") forgetLink();
}

/** Somebody came by a mailed link: opening it alone does nothing. @param {{done: () => void}} props */
function Confirm({ done }) {
  useEffect(() => { api("GET", "/v1/session/links", { token: link.value }).then((found) => { whom.value = found.email; }, notThis); }, []);
  const confirm = () => run("confirm", () => api("POST", "/v1/session", { body: { link: link.value } }), () => { forgetLink(); done(); });
  if (!whom.value && !wrong.value) return html`<div class="skeleton skeleton-tall"></div>`;
  return html`<section class="card who" aria-labelledby="who-title"><h2 id="who-title">Sign in here?</h2>
    ${whom.value && html`<p class="who-name">${whom.value}</p>
      <p class="muted">You will be signed in here as this person, and what this browser's guest has bought comes along. Not your address? Then close the page.</p>
      <button type="button" class="button button-primary" disabled=${busy.value === "confirm"} onClick=${confirm}>Sign in</button>`}
    ${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}</section>`;
}

function Mailed() {
  const { to, minutes } = /** @type {{to: string, minutes: number}} */ (mailed.value);
  return html`<section class="card who" aria-labelledby="who-title" role="status"><h2 id="who-title">Look into your mail</h2>
    <p class="muted">A link is on its way to <strong>${to}</strong>. It works once, for ${minutes} minutes. Open it in the browser in which you want to be signed in.</p>
    <button type="button" class="button" onClick=${() => { mailed.value = null; }}>Another address</button></section>`;
}

/** @param {{done: () => void}} props */
function Recover({ done }) {
  /** @param {any} event */
  const submit = (event) => {
    event.preventDefault();
    const code = new FormData(event.target).get("code")?.toString().trim();
    // Reading the account makes this browser a visitor; before that the API does not know who asks.
    const recover = () => start().then(() => api("POST", "/v1/session/recover", { body: { recovery_code: code } }));
    if (code) run("recover", recover, done);
  };
  return html`<details class="recover"><summary>I have a recovery code</summary>
    <form onSubmit=${submit} class="inline-form"><label class="visually-hidden" for="code">Recovery code</label>
      <input class="input mono" id="code" name="code" autocomplete="off" autocapitalize="characters" spellcheck="false" placeholder="from your first top-up" required maxlength="64" />
      <button class="button" type="submit" disabled=${busy.value === "recover"}>Bring my credits</button></form></details>`;
}

/** @param {{done: () => void}} props */
export function SignInPanel({ done }) {
  const now = session.value;
  const linksOnly = now?.sign_in === "link";
  /** @param {any} event */
  const submit = (event) => {
    event.preventDefault();
    const email = new FormData(event.target).get("email")?.toString().trim();
    if (email && (linksOnly || event.submitter?.value === "link")) mailLink(email);
    else if (email) run("in", () => api("POST", "/v1/session", { body: { email } }), done);
  };
  if (now?.kind === "person") {
    return html`<section class="card who" aria-labelledby="who-title"><h2 id="who-title" class="label">Signed in</h2>
      <p class="who-name">${now.email ?? "You"}</p><p class="hint">Your credits are here wherever you sign in.</p>
      <button type="button" class="button" disabled=${busy.value === "out"} onClick=${() => run("out", () => api("DELETE", "/v1/session"), done)}>Sign out</button>
      <button type="button" class="button" disabled=${busy.value === "out"} onClick=${() => run("out", () => api("DELETE", "/v1/sessions"), done)}>Sign out everywhere</button></section>`;
  }
  if (mailed.value) return html`<${Mailed} />`;
  return html`<section class="card who" aria-labelledby="who-title"><h2 id="who-title">You are a guest</h2>
    <p class="muted">That is fine: your credits live in this browser. Sign in to have them everywhere; what you bought comes along.</p>
    ${now?.sign_in && now.sign_in !== "embedded" && !linksOnly ? html`<a class="button button-primary" href=${now.sign_in}>Sign in</a>`
      : html`<form onSubmit=${submit} class="inline-form"><label class="visually-hidden" for="email">E-mail address</label>
        <input class="input" id="email" name="email" type="email" autocomplete="email" placeholder="you@example.com" required />
        ${!linksOnly && html`<button class="button button-primary" type="submit" disabled=${busy.value === "in"}>Sign in</button>`}
        ${(linksOnly || now?.mails_links) && html`<button class=${`button ${linksOnly ? "button-primary" : ""}`} type="submit" value="link" disabled=${busy.value === "link"}>Mail me a link</button>`}</form>
        <p class="hint">${linksOnly ? "No password: the link in the mail signs you in, once." : `On this machine the built-in issuer answers, and asks for no password.${now?.mails_links ? " A mailed link comes to the sandbox's mailbox." : ""}`}</p>`}
    ${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}
    <${Recover} done=${done} /></section>`;
}

function Page() {
  useEffect(() => { loadSession(); }, []);
  const arrived = () => { if (session.value?.kind === "person") location.assign("/account"); };
  if (link.value) return html`<h1>Sign in</h1><${Confirm} done=${arrived} />`;
  return html`<h1>Sign in</h1>${session.value ? html`<${SignInPanel} done=${arrived} />` : html`<div class="skeleton skeleton-tall"></div>`}`;
}

if (document.getElementById("sign-in")) mount(html`<${Page} />`, "sign-in");

// Signing in, and bringing a guest's credits along.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api, Problem } from "./api.js";
import { plural } from "./money.js";
import { mount } from "./shell.js";
import { loadAccount, loadSession, session, start } from "./store.js";
import { html, Icon, toast } from "./ui.js";

const busy = signal("");
const wrong = signal("");

/**
 * @param {string} name
 * @param {() => Promise<any>} work
 * @param {() => void} done
 */
async function run(name, work, done) {
  busy.value = name;
  wrong.value = "";
  try {
    const answer = await work();
    const brought = answer?.merged?.credits;
    toast(brought ? `${plural(brought, "credit")} came along.` : name === "out" ? "Signed out." : "Done.");
    await Promise.all([loadSession(), loadAccount().catch(() => {})]);
    done();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    wrong.value = error.status === 429 ? "Too many tries. Wait a little." : error.message;
  }
  busy.value = "";
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
  /** @param {any} event */
  const submit = (event) => {
    event.preventDefault();
    const email = new FormData(event.target).get("email")?.toString().trim();
    if (email) run("in", () => api("POST", "/v1/session", { body: { email } }), done);
  };
  if (now?.kind === "person") {
    return html`<section class="card who" aria-labelledby="who-title"><h2 id="who-title" class="label">Signed in</h2>
      <p class="who-name">${now.email ?? "You"}</p><p class="hint">Your credits are here wherever you sign in.</p>
      <button type="button" class="button" disabled=${busy.value === "out"} onClick=${() => run("out", () => api("DELETE", "/v1/session"), done)}>Sign out</button>
      <button type="button" class="button" disabled=${busy.value === "out"} onClick=${() => run("out", () => api("DELETE", "/v1/sessions"), done)}>Sign out everywhere</button></section>`;
  }
  return html`<section class="card who" aria-labelledby="who-title"><h2 id="who-title">You are a guest</h2>
    <p class="muted">That is fine: your credits live in this browser. Sign in to have them everywhere; what you bought comes along.</p>
    ${now?.sign_in && now.sign_in !== "embedded" ? html`<a class="button button-primary" href=${now.sign_in}>Sign in</a>`
      : html`<form onSubmit=${submit} class="inline-form"><label class="visually-hidden" for="email">E-mail address</label>
        <input class="input" id="email" name="email" type="email" autocomplete="email" placeholder="you@example.com" required />
        <button class="button button-primary" type="submit" disabled=${busy.value === "in"}>Sign in</button></form>
        <p class="hint">On this machine the built-in issuer answers: no mail is sent, no password is asked.</p>`}
    ${wrong.value && html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>${wrong.value}</span></p>`}
    <${Recover} done=${done} /></section>`;
}

function Page() {
  useEffect(() => { loadSession(); }, []);
  return html`<h1>Sign in</h1>${session.value ? html`<${SignInPanel} done=${() => { if (session.value?.kind === "person") location.assign("/account"); }} />` : html`<div class="skeleton skeleton-tall"></div>`}`;
}

if (document.getElementById("sign-in")) mount(html`<${Page} />`, "sign-in");

// What stands on every page: credits in hand, the theme switch, the top-up modal, the service worker.
import { signal } from "@preact/signals";
import { render } from "preact";
import { number } from "./money.js";
import { account, balance, recall, start, topupRequest } from "./store.js";
import { html, Icon, Toasts } from "./ui.js";

function TopBalance() {
  const now = balance.value;
  if (!now) return html`<span class="top-balance top-balance-empty" aria-hidden="true"></span>`;
  const free = now.paid === 0 && now.free > 0;
  return html`<button type="button" class=${`top-balance ${now.low || now.empty ? "top-balance-low" : ""}`}
      onClick=${() => { topupRequest.value = {}; }}>
    <span class="num">${number(free ? now.free : now.available)}<small> ${free ? "free today" : "credits"}</small></span>
    <span class="visually-hidden">, top up</span><span class="top-balance-plus"><${Icon} name="plus" /></span></button>`;
}

const theme = signal(document.documentElement.dataset.theme ?? "system");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
function ThemeSwitch() {
  const dark = theme.value === "dark" || (theme.value === "system" && systemDark.matches);
  const change = () => {
    const next = dark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    theme.value = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // Forgotten at the next visit.
    }
  };
  return html`<button type="button" class="theme-switch" onClick=${change}>
    <${Icon} name=${dark ? "sun" : "moon"} />${dark ? "Light paper" : "Dark paper"}</button>`;
}

/** The top-up is loaded when it is first wanted. */
const TopUp = signal(/** @type {any} */ (null));
function Overlays() {
  const wanted = topupRequest.value;
  if (wanted && !TopUp.value) import("./topup.js").then((module) => { TopUp.value = module.TopUpModal; });
  return html`${wanted && TopUp.value && html`<${TopUp.value} ...${wanted} />`}<${Toasts} />`;
}

/**
 * Put an island where the server left a place for it.
 * @param {any} what
 * @param {string} id
 */
export function mount(what, id) {
  const place = /** @type {HTMLElement} */ (document.getElementById(id));
  place.replaceChildren();
  render(what, place);
}

async function registerWorker() {
  if (!("serviceWorker" in navigator) || !window.isSecureContext) return;
  const address = `/sw.js?build=${document.body.dataset.build}`;
  const types = /** @type {any} */ (window).trustedTypes;
  const policy = types?.createPolicy("llamasketch-worker", {
    createScriptURL: (/** @type {string} */ url) => {
      if (url === address) return url;
      throw new TypeError("only our own service worker");
    },
  });
  await navigator.serviceWorker.register(policy ? policy.createScriptURL(address) : address).catch(() => {});
}

if (!document.getElementById("top-balance")?.dataset.ready) {
  // A page that is not about this browser's account leaves it alone: nobody becomes a visitor by opening a link.
  const own = document.body.dataset.account !== "none";
  if (own) mount(html`<${TopBalance} />`, "top-balance");
  mount(html`<${ThemeSwitch} />`, "theme-switch");
  mount(html`<${Overlays} />`, "overlays");
  /** @type {HTMLElement} */ (document.getElementById("top-balance")).dataset.ready = "yes";
  if (own) start();
  if (recall("no-worker") === null) addEventListener("load", registerWorker);
}

export { account };

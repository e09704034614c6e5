// A top-up at its own address: a reload, or another device, goes on where it was.
import { mount } from "./shell.js";
import { TopUp } from "./topup.js";
import { html } from "./ui.js";

const id = decodeURIComponent(location.pathname.split("/")[2] ?? "");

mount(html`<h1>Top up</h1><div class="card topup-card"><${TopUp} id=${id || undefined} page
  onId=${(/** @type {string} */ next) => history.replaceState(null, "", `/topups/${next}`)} /></div>`, "topup");

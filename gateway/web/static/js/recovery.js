// A guest's recovery code. The server says it once, when the first top-up opens; it must outlive the trip to a
// card page, and is only of use once money is there. So it is kept here until its owner says "I have it".
import { signal } from "@preact/signals";
import { recall, remember } from "./store.js";

export const recovery = signal(recall("recovery") || null);

/** @param {string | undefined} code */
export function keepRecovery(code) {
  if (!code) return;
  recovery.value = code;
  remember("recovery", code);
}

export function forgetRecovery() {
  recovery.value = null;
  remember("recovery", "");
}

// A guest's recovery code. The server says it whenever a top-up opens; it must outlive the trip to a card page,
// and is only of use once money is there. So it is kept here until its owner says "I have it", and then not
// shown again: of a code that is had, its last signs are remembered.
import { signal } from "@preact/signals";
import { recall, remember } from "./store.js";

export const recovery = signal(recall("recovery") || null);

/** @param {string | null | undefined} code */
export function keepRecovery(code) {
  if (!code || recall("recovery_had") === code.slice(-4)) return;
  recovery.value = code;
  remember("recovery", code);
}

export function forgetRecovery() {
  if (recovery.value) remember("recovery_had", recovery.value.slice(-4));
  recovery.value = null;
  remember("recovery", "");
}

// What is kept in this browser besides the server, and of whom: a person's goes with them when they sign out.

/** The id of a person's account, or "" of a guest. */
let owner = "";
/** The page is about to be loaded anew, and nothing is kept any more. */
export let left = false;

/** Without storage things are forgotten, and that is all. @param {() => any} work */
export function tried(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

/** @param {() => Storage} storage @returns {[(name: string) => string | null, (name: string, value: string) => void]} */
const of = (storage) => [
  (name) => tried(() => storage().getItem(`llamasketch:${name}`)),
  (name, value) => left || tried(() => storage().setItem(`llamasketch:${name}`, value)),
];
/** Small things remembered in this browser. */
export const [recall, remember] = of(() => localStorage);
/** The same of this tab alone. */
export const [recallHere, rememberHere] = of(() => sessionStorage);

/** Whether something here is a person's, and of another one. @param {string} now whose browser this is */
export const isOthers = (now) => [owner, recallHere("person"), recall("person")].some((one) => one && one !== now);

/**
 * What a guest made comes along into an account; what a person made stays for nobody else, in no tab.
 * @param {string} now
 */
export function belongs(now) {
  if (isOthers(now)) leave();
  owner = now;
  rememberHere("person", now);
  remember("person", now);
}

/** Forget what was kept, and what this page has in its memory. */
export function leave() {
  if (left) return;
  left = true;
  import("./leaving.js").then((module) => module.forget(), () => { left = false; }); // without a network: at the next look
}

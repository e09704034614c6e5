// Somebody was signed in here and is not any more: nothing of theirs stays. Loaded when that happens.
import { clear } from "idb-keyval";
import { tried } from "./kept.js";

/** What says nothing of a person, or is a guest's only way to money. */
const STAYS = /^theme$|^llamasketch:(greeted|no-worker|recovery|recovery_had)$/;

/** Empty what is kept, and load the page anew without what it has in its memory. */
export async function forget() {
  for (const storage of [() => localStorage, () => sessionStorage]) {
    tried(() => Object.keys(storage()).forEach((name) => STAYS.test(name) || storage().removeItem(name)));
  }
  await clear().catch(() => {});
  location.reload();
}

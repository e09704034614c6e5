// Small pieces that every page uses.
import { signal } from "@preact/signals";
import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";

export { html };

/** @type {Record<string, string>} drawn on a 24-unit grid, with a slightly unsteady hand */
const ICONS = {
  pen: "M4 20.200c.3-1.700.8-3.400 1.300-5L16 4.500c.9-.9 2.300-.9 3.200 0 .9.900.9 2.300 0 3.200L8.700 18.500c-1.500.700-3.100 1.300-4.700 1.700ZM14 6.800l3.100 3.200",
  eraser: "m9.300 19.500-5-5c-.7-.8-.7-1.900 0-2.700l7.900-7.500c.8-.7 1.900-.7 2.700 0l4.700 4.800c.7.8.7 1.900 0 2.600l-7.700 7.800H9.300ZM8.300 8.200l7.400 7.500M12 19.500h8",
  undo: "M8.500 5 4.300 9.200l4.300 4.100M4.600 9.200h9.200c3.500 0 5.900 2.300 5.900 5.300s-2.400 5.300-5.900 5.300H9.500",
  redo: "m15.500 5 4.200 4.200-4.300 4.100M19.400 9.200h-9.200c-3.500 0-5.900 2.300-5.900 5.300s2.400 5.300 5.900 5.300h4.300",
  clear: "M4.500 6.500h15M9.500 6.300c0-2.800 5-2.800 5 0M6.500 6.700l.8 11.800c.1 1.100.8 1.700 1.900 1.700h5.600c1.100 0 1.800-.6 1.900-1.700l.8-11.800M10.200 10.500l.3 6M13.800 10.500l-.3 6",
  plus: "M12 5v14M5 12h14",
  close: "m6 6 12 12M18 6 6 18",
  copy: "M9 9.500c0-1 .5-1.500 1.500-1.500h8c1 0 1.500.5 1.500 1.500v9c0 1-.5 1.500-1.500 1.500h-8c-1 0-1.500-.5-1.500-1.500v-9ZM15 7.500V5.600C15 4.500 14.500 4 13.500 4H5.600C4.500 4 4 4.500 4 5.600v7.800c0 1.100.5 1.600 1.600 1.600H8.500",
  check: "m4.500 12.800 4.900 4.900L19.500 6.800",
  open: "M13.500 4.500h6v6M19.300 4.700l-8.500 8.500M10 5.500H6.200C5 5.500 4.500 6 4.500 7.200v10.600c0 1.200.5 1.700 1.700 1.700h10.600c1.200 0 1.700-.5 1.700-1.700V14",
  download: "M12 4v11M7.300 10.600 12 15.300l4.700-4.700M4.500 19.500h15",
  compare: "M12 3.500v17M9 6H5.800C4.600 6 4 6.600 4 7.800v8.400C4 17.400 4.600 18 5.800 18H9M15 6h3.200c1.200 0 1.800.6 1.800 1.800v8.400c0 1.200-.6 1.800-1.800 1.800H15",
  reuse: "M5 12.500C5 8.500 8.200 5.500 12 5.500c2.500 0 4.600 1.300 5.800 3.200M18.200 4.800v4.100h-4.100M19 11.500c0 4-3.200 7-7 7-2.500 0-4.600-1.300-5.800-3.200M5.800 19.200v-4.100h4.100",
  bolt: "M13.500 3 5.500 13.500h5.700L10 21l8.500-11H12.500L13.500 3Z",
  card: "M3.500 7.300c0-1.200.6-1.800 1.800-1.800h13.400c1.200 0 1.800.6 1.800 1.800v9.400c0 1.200-.6 1.800-1.800 1.800H5.300c-1.200 0-1.800-.6-1.800-1.800V7.300ZM3.700 10h16.600M7 15h3.500",
  drop: "M12 3.500c3.700 4.200 6 7.300 6 10.400 0 3.600-2.600 6.100-6 6.100s-6-2.500-6-6.100c0-3.100 2.300-6.200 6-10.400Z",
  dollar: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17ZM14.700 9.200c-.5-1-1.400-1.500-2.700-1.500-1.600 0-2.700.8-2.700 2.100 0 3 5.500 1.300 5.500 4.300 0 1.400-1.200 2.200-2.800 2.200-1.500 0-2.500-.6-2.900-1.700M12 6.200v1.500M12 16.300v1.500",
  info: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17ZM12 11v5.300M12 7.700v.2",
  warn: "M10.700 4.500 3.600 17.300c-.6 1.200 0 2.200 1.300 2.200h14.200c1.300 0 1.900-1 1.300-2.200L13.300 4.500c-.6-1.100-2-1.100-2.600 0ZM12 9.500v4.300M12 16.600v.2",
  clock: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17ZM12 7.500v4.800l3.200 1.900",
  back: "M11 5.500 4.500 12l6.500 6.500M5 12h14.500",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 3v1.500M12 19.500V21M3 12h1.500M19.500 12H21M5.600 5.600l1.100 1.100M17.300 17.300l1.100 1.100M5.600 18.400l1.100-1.100M17.300 6.700l1.100-1.100",
  moon: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10Z",
  live: "M12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5ZM7.200 7.200a6.800 6.800 0 0 0 0 9.600M16.800 7.200a6.800 6.800 0 0 1 0 9.600M4.400 4.400a10.700 10.700 0 0 0 0 15.200M19.600 4.400a10.700 10.700 0 0 1 0 15.200",
  spark: "M12 3.500c.7 4.600 2.300 7 8 8.500-5.700 1.500-7.300 3.900-8 8.500-.7-4.600-2.300-7-8-8.500 5.700-1.500 7.300-3.900 8-8.500Z",
  book: "M12 6.500C9.800 5 7 4.500 3.500 4.800v13.400C7 17.900 9.800 18.400 12 20c2.200-1.600 5-2.100 8.500-1.800V4.800C17 4.500 14.200 5 12 6.500ZM12 6.700V20",
  keys: "M4 8c0-1 .5-1.500 1.500-1.500h13c1 0 1.500.5 1.500 1.500v8c0 1-.5 1.500-1.500 1.500h-13C4.500 17.500 4 17 4 16V8ZM7 10h.2M10.300 10h.2M13.600 10h.2M16.900 10h.2M8 14h8",
  image: "M4 6.500C4 5.500 4.500 5 5.500 5h13c1 0 1.500.5 1.500 1.500v11c0 1-.5 1.500-1.500 1.500h-13C4.500 19 4 18.500 4 17.500v-11ZM4.300 16.500l4.600-4.800 3.700 3.800 2.500-2.300 4.600 4M15.500 8.600v.3",
  finger: "M9 12V5.500c0-2 2.900-2 2.900 0v5.200l5 1.200c1.200.3 1.800 1.200 1.700 2.400l-.6 5.700H10.500L6 14.500c-1.100-1.500.7-3 2-1.800l1 1",
};

/** @param {{name: string}} props */
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" fill="none" stroke="currentColor"
  stroke-width="1.900" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false"><path d=${ICONS[name]} /></svg>`;

/**
 * A native modal dialog: focus trap, Escape and inertness are the browser's.
 * @param {{title: any, onClose: () => void, children?: any, class?: string, label?: string}} props
 */
export function Modal({ title, onClose, children, class: extra = "" }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    ref.current?.showModal();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${ref} class=${`modal ${extra}`} aria-labelledby="modal-title"
      onCancel=${(/** @type {Event} */ event) => { event.preventDefault(); onClose(); }}
      onPointerDown=${(/** @type {Event} */ event) => event.target === ref.current && onClose()}>
    <div class="modal-inner">
      <header class="modal-head"><h2 id="modal-title" tabindex="-1">${title}</h2>
        <button class="icon-button" type="button" onClick=${onClose} aria-label="Close"><${Icon} name="close" /></button></header>
      <div class="modal-body">${children}</div>
    </div>
  </dialog>`;
}

const toasts = signal(/** @type {{id: number, text: string}[]} */ ([]));
let toastId = 0;
/**
 * Say something small for a few seconds.
 * @param {string} text
 */
export function toast(text) {
  const id = ++toastId;
  toasts.value = [...toasts.value.slice(-2), { id, text }];
  setTimeout(() => {
    toasts.value = toasts.value.filter((item) => item.id !== id);
  }, 4_000);
}
export const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">
  ${toasts.value.map((item) => html`<div class="toast" key=${item.id}>${item.text}</div>`)}</div>`;

/**
 * Copy text; the button itself says that it is done.
 * @param {{text: string, label?: string, class?: string}} props
 */
export function CopyButton({ text, label = "Copy", class: extra = "" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    if (await copyText(text)) {
      setDone(true);
      setTimeout(() => setDone(false), 2_000);
    }
  };
  return html`<button type="button" class=${`button ${extra}`} onClick=${copy}>
    <${Icon} name=${done ? "check" : "copy"} /><span aria-live="polite">${done ? "Copied" : label}</span></button>`;
}

/** @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    toast("This browser does not allow copying; select the text instead.");
    return false;
  }
}

/** A number that changes every second, for clocks. */
export function useNow() {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

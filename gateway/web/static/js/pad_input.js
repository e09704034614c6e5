// From pointers and keys to strokes. A pen always wins over a hand that rests on the glass.
import { signal } from "@preact/signals";
import { SHEET } from "./pad.js";

const PALM_RADIUS = 40;
const PALM_AFTER_PEN_MS = 700;

/** A pen was used here: fingers do not draw until somebody says so. */
export const penSeen = signal(false);
export const fingersDraw = signal(true);

/** @typedef {{tool: "pen" | "eraser", color: string, size: number}} Style */

/**
 * Wire a canvas to a pad. Returns how to undo that.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./pad.js").Pad} pad
 * @param {() => Style} style
 * @param {(cursor: {x: number, y: number, down: boolean} | null) => void} showCursor for drawing by keyboard
 */
export function listen(canvas, pad, style, showCursor) {
  /** @type {number | null} */
  let active = null;
  let activeType = "";
  let penAt = -Infinity;
  /** @type {Set<number>} */
  const touches = new Set();

  /** @param {PointerEvent} event */
  const point = (event) => {
    const rect = canvas.getBoundingClientRect();
    const x = ((event.clientX - rect.left) / rect.width) * SHEET;
    const y = ((event.clientY - rect.top) / rect.height) * SHEET;
    return [Math.round(x * 10) / 10, Math.round(y * 10) / 10, Math.round(event.pressure * 100) / 100];
  };

  /** @param {PointerEvent} event */
  const refused = (event) => {
    if (event.pointerType !== "touch") return event.pointerType === "mouse" && event.button !== 0;
    const palm = Math.max(event.width, event.height) > PALM_RADIUS * 2;
    return palm || !fingersDraw.value || activeType === "pen" || event.timeStamp - penAt < PALM_AFTER_PEN_MS;
  };

  /** @param {PointerEvent} event */
  const down = (event) => {
    if (event.pointerType === "touch") touches.add(event.pointerId);
    if (event.pointerType === "pen") {
      penAt = event.timeStamp;
      if (!penSeen.value) [penSeen.value, fingersDraw.value] = [true, false];
      if (activeType === "touch") [active] = [null, pad.drop()];
    }
    if (active !== null) {
      if (activeType === "touch" && touches.size > 1) [active, activeType] = [null, (pad.drop(), "")];
      return;
    }
    if (refused(event)) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    showCursor(null);
    try {
      canvas.setPointerCapture(event.pointerId);
    } catch {
      // The pointer is gone already; its stroke ends with the next event.
    }
    [active, activeType] = [event.pointerId, event.pointerType];
    const chosen = style();
    const tool = event.pointerType === "pen" && event.buttons & 32 ? "eraser" : chosen.tool;
    pad.begin({ ...chosen, tool, pressure: event.pointerType === "pen" }, point(event));
  };

  /** @param {PointerEvent} event */
  const move = (event) => {
    if (event.pointerType === "pen") penAt = event.timeStamp;
    if (event.pointerId !== active) return;
    event.preventDefault();
    const events = event.getCoalescedEvents?.() ?? [];
    pad.extend((events.length ? events : [event]).map(point));
  };

  /** @param {PointerEvent} event */
  const up = (event) => {
    touches.delete(event.pointerId);
    if (event.pointerId !== active) return;
    [active, activeType] = [null, ""];
    if (event.type === "pointercancel") pad.drop();
    else pad.end();
  };

  const stopKeys = listenKeys(canvas, pad, style, showCursor);
  /** @type {[string, (event: any) => void][]} */
  const wires = [["pointerdown", down], ["pointermove", move], ["pointerup", up], ["pointercancel", up],
    ["contextmenu", (event) => event.preventDefault()]];
  for (const [name, listener] of wires) canvas.addEventListener(name, listener);
  return () => {
    for (const [name, listener] of wires) canvas.removeEventListener(name, listener);
    stopKeys();
  };
}

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Arrows move a cursor over the focused sheet, Space puts the pen down and lifts it.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./pad.js").Pad} pad
 * @param {() => Style} style
 * @param {(cursor: {x: number, y: number, down: boolean} | null) => void} showCursor
 */
function listenKeys(canvas, pad, style, showCursor) {
  const cursor = { x: SHEET / 2, y: SHEET / 2, down: false };
  const lift = () => {
    if (cursor.down) pad.end();
    cursor.down = false;
  };
  /** @param {KeyboardEvent} event */
  const key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const step = event.shiftKey ? 64 : 16;
      cursor.x = Math.min(SHEET, Math.max(0, cursor.x + arrow[0] * step));
      cursor.y = Math.min(SHEET, Math.max(0, cursor.y + arrow[1] * step));
      if (cursor.down) pad.extend([[cursor.x, cursor.y, 0.5]]);
    } else if (event.key === " ") {
      if (cursor.down) lift();
      else {
        pad.begin({ ...style(), pressure: false }, [cursor.x, cursor.y, 0.5]);
        cursor.down = true;
      }
    } else return;
    event.preventDefault();
    showCursor({ ...cursor });
  };
  const blur = () => {
    lift();
    showCursor(null);
  };
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("blur", blur);
  return () => {
    canvas.removeEventListener("keydown", key);
    canvas.removeEventListener("blur", blur);
  };
}

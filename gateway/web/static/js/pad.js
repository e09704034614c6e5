// The drawing itself: a list of operations, an undo history, and a canvas that shows them.
// Coordinates are units of a 1024 × 1024 sheet, whatever the size on screen.
import { signal } from "@preact/signals";
import { get, set } from "idb-keyval";
import { getStroke } from "perfect-freehand";
import { isBlank } from "./blank.js";
import { left } from "./kept.js";

export const SHEET = 1024;
const STORE = "sketch:v1";
const OPERATIONS_MAX = 4_000;
/** How long after a change it is looked whether anything can be seen. */
const LOOK_MS = 120;

/**
 * @typedef {{kind: "stroke", tool: "pen" | "eraser", color: string, size: number, pressure: boolean, points: number[][]}} Stroke
 * @typedef {{kind: "clear"} | {kind: "image", blob: Blob} | Stroke} Operation
 */

/** @param {Stroke} stroke @param {boolean} finished */
function outline(stroke, finished) {
  const points = getStroke(stroke.points, {
    size: stroke.size,
    thinning: stroke.tool === "eraser" ? 0 : stroke.pressure ? 0.72 : 0.45,
    smoothing: 0.5,
    streamline: 0.35,
    simulatePressure: !stroke.pressure,
    last: finished,
  });
  const path = new Path2D();
  if (points.length < 2) return path;
  path.moveTo(points[0][0], points[0][1]);
  for (let index = 1; index < points.length; index += 1) {
    const [x, y] = points[index];
    const [nextX, nextY] = points[(index + 1) % points.length];
    path.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  path.closePath();
  return path;
}

/** @param {CanvasRenderingContext2D} context @param {Stroke} stroke */
function ink(context, stroke, finished = true) {
  context.save();
  context.globalCompositeOperation = stroke.tool === "eraser" ? "destination-out" : "source-over";
  context.fillStyle = stroke.color;
  context.fill(outline(stroke, finished));
  context.restore();
}

export class Pad {
  constructor() {
    /** @type {Operation[]} */
    this.operations = [];
    /** @type {Operation[]} */
    this.undone = [];
    /** @type {Stroke | null} */
    this.current = null;
    /** Grows with every change to the drawing; what is on screen depends on it. */
    this.revision = signal(0);
    this.canUndo = signal(false);
    this.canRedo = signal(false);
    this.empty = signal(true);
    /** Something was drawn, and nothing of it can be seen: all erased, or as light as the paper. */
    this.faded = signal(false);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.looking = undefined;
    this.layer = new OffscreenCanvas(SHEET, SHEET);
    /** @type {Map<Blob, ImageBitmap>} */
    this.bitmaps = new Map();
    /** @type {HTMLCanvasElement | null} */
    this.canvas = null;
    this.dirty = false;
  }

  /** Take what an earlier visit left. */
  async restore() {
    const saved = await get(STORE).catch(() => null);
    if (saved?.operations && this.operations.length === 0) {
      this.operations = saved.operations;
      await this.decode();
      this.repaint();
    }
  }

  async decode() {
    for (const operation of this.operations) {
      if (operation.kind === "image" && !this.bitmaps.has(operation.blob)) {
        this.bitmaps.set(operation.blob, await createImageBitmap(operation.blob));
      }
    }
  }

  /** @param {HTMLCanvasElement} canvas */
  attach(canvas) {
    this.canvas = canvas;
    const fit = () => {
      const side = Math.max(1, Math.round(canvas.clientWidth * Math.min(devicePixelRatio || 1, 2)));
      if (canvas.width !== side) {
        canvas.width = side;
        canvas.height = side;
        this.show();
      }
    };
    const observer = new ResizeObserver(fit);
    observer.observe(canvas);
    fit();
    return () => observer.disconnect();
  }

  /** @param {Omit<Stroke, "kind" | "points">} style @param {number[]} point */
  begin(style, point) {
    this.current = { kind: "stroke", ...style, points: [point] };
    this.show();
  }

  /** @param {number[][]} points */
  extend(points) {
    if (!this.current) return;
    this.current.points.push(...points);
    this.show();
  }

  end() {
    const stroke = this.current;
    this.current = null;
    if (stroke) this.add(stroke);
  }

  /** Forget the stroke in progress: it was a palm, or the first finger of two. */
  drop() {
    this.current = null;
    this.show();
  }

  clear() {
    if (!this.empty.value) this.add({ kind: "clear" });
  }

  /** @param {Blob} blob a picture that becomes the sheet to draw on */
  async place(blob) {
    this.bitmaps.set(blob, await createImageBitmap(blob));
    this.add({ kind: "image", blob });
  }

  /** @param {Operation} operation */
  add(operation) {
    this.operations.push(operation);
    if (this.operations.length > OPERATIONS_MAX) this.operations.splice(0, this.operations.length - OPERATIONS_MAX);
    this.undone = [];
    this.draw(operation);
    this.changed();
  }

  undo() {
    const operation = this.operations.pop();
    if (!operation) return;
    this.undone.push(operation);
    this.repaint();
  }

  redo() {
    const operation = this.undone.pop();
    if (!operation) return;
    this.operations.push(operation);
    this.draw(operation);
    this.changed();
  }

  /** @param {Operation} operation */
  draw(operation) {
    const context = /** @type {any} */ (this.layer.getContext("2d"));
    if (operation.kind === "stroke") return ink(context, operation);
    context.clearRect(0, 0, SHEET, SHEET);
    const bitmap = operation.kind === "image" && this.bitmaps.get(operation.blob);
    if (bitmap) {
      const scale = Math.min(SHEET / bitmap.width, SHEET / bitmap.height);
      const [width, height] = [bitmap.width * scale, bitmap.height * scale];
      context.drawImage(bitmap, (SHEET - width) / 2, (SHEET - height) / 2, width, height);
    }
  }

  repaint() {
    /** @type {any} */ (this.layer.getContext("2d")).clearRect(0, 0, SHEET, SHEET);
    const from = this.operations.findLastIndex((operation) => operation.kind !== "stroke");
    for (const operation of this.operations.slice(Math.max(0, from))) this.draw(operation);
    this.changed();
  }

  changed() {
    this.canUndo.value = this.operations.length > 0;
    this.canRedo.value = this.undone.length > 0;
    const last = this.operations.at(-1);
    this.empty.value = !last || last.kind === "clear";
    this.revision.value += 1;
    clearTimeout(this.looking);
    if (this.empty.value) this.faded.value = false;
    else this.looking = setTimeout(() => this.look(), LOOK_MS);
    this.show();
    if (!left) set(STORE, { operations: this.operations }).catch(() => {});
  }

  /** Paint the screen in the next frame. */
  show() {
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      const canvas = this.canvas;
      const context = canvas?.getContext("2d");
      if (!canvas || !context) return;
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingQuality = "high";
      context.drawImage(this.layer, 0, 0, canvas.width, canvas.height);
      if (this.current) {
        context.save();
        context.scale(canvas.width / SHEET, canvas.height / SHEET);
        ink(context, this.current, false);
        context.restore();
      }
    });
  }

  /**
   * Whether there is nothing to send, as of now: nothing drawn, or nothing that can be seen.
   * @param {number} side pixels, as it would be sent: a line may be seen on one sheet and be too faint on another
   */
  look(side = SHEET) {
    clearTimeout(this.looking);
    if (this.empty.value) return true;
    const { data } = /** @type {any} */ (this.onPaper(side).getContext("2d")).getImageData(0, 0, side, side);
    this.faded.value = isBlank(data, side, side);
    return this.faded.value;
  }

  /**
   * The drawing as a PNG on white paper.
   * @param {number} side pixels
   */
  async export(side) {
    return this.onPaper(side).convertToBlob({ type: "image/png" });
  }

  /** @param {number} side pixels */
  onPaper(side) {
    const sheet = new OffscreenCanvas(side, side);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (sheet.getContext("2d"));
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, side, side);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.layer, 0, 0, side, side);
    return sheet;
  }
}

/** @param {Blob} blob */
export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

// The pencil tin: tools, colours, sizes, history.
import { signal } from "@preact/signals";
import { fingersDraw, penSeen } from "./pad_input.js";
import { html, Icon } from "./ui.js";

export const COLOURS = [
  ["#1d1a17", "Ink"], ["#8c8378", "Pencil grey"], ["#c8482c", "Terracotta"], ["#e0a526", "Mustard"],
  ["#4b8a57", "Leaf"], ["#3479ad", "Sky"], ["#84508f", "Plum"],
];
export const SIZES = [[6, "Fine"], [14, "Medium"], [34, "Broad"]];

export const tool = signal(/** @type {"pen" | "eraser"} */ ("pen"));
export const colour = signal(/** @type {string} */ (COLOURS[0][0]));
export const size = signal(/** @type {number} */ (SIZES[1][0]));

export const style = () => ({ tool: tool.value, color: colour.value, size: tool.value === "eraser" ? size.value * 2.2 : size.value });

/** @param {{name: string, label: string, keys: string, value: string}} props */
const ToolChoice = ({ name, label, keys, value }) => html`<label class="tool" title=${`${label} (${keys})`}>
  <input type="radio" name="tool" value=${value} checked=${tool.value === value} onChange=${() => { tool.value = /** @type {any} */ (value); }} />
  <${Icon} name=${name} /><span class="visually-hidden">${label}</span></label>`;

/** @param {{pad: import("./pad.js").Pad}} props */
export function Tools({ pad }) {
  const custom = !COLOURS.some(([value]) => value === colour.value);
  return html`<div class="tin" role="group" aria-label="Drawing tools">
    <fieldset class="tin-group"><legend class="visually-hidden">Tool</legend>
      <${ToolChoice} name="pen" label="Pen" keys="B" value="pen" />
      <${ToolChoice} name="eraser" label="Eraser" keys="E" value="eraser" />
    </fieldset>
    <fieldset class="tin-group tin-sizes"><legend class="visually-hidden">Size</legend>
      ${SIZES.map(([value, label], index) => html`<label class=${`size size-${index}`} title=${`${label} ([ and ])`}>
        <input type="radio" name="size" value=${value} checked=${size.value === value} onChange=${() => { size.value = Number(value); }} />
        <span class="visually-hidden">${label}</span></label>`)}
    </fieldset>
    <fieldset class="tin-group tin-colours"><legend class="visually-hidden">Colour</legend>
      ${COLOURS.map(([value, label], index) => html`<label class=${`swatch swatch-${index}`} title=${`${label} (${index + 1})`}>
        <input type="radio" name="colour" value=${value} checked=${colour.value === value}
          onChange=${() => { colour.value = String(value); tool.value = "pen"; }} />
        <span class="visually-hidden">${label}</span></label>`)}
      <label class=${`swatch swatch-custom ${custom ? "swatch-on" : ""}`} title="Any colour" style=${{ "--own": custom ? colour.value : "transparent" }}>
        <input type="color" value=${colour.value} onInput=${(/** @type {any} */ event) => { colour.value = event.target.value; tool.value = "pen"; }} />
        <span class="visually-hidden">Any colour</span></label>
    </fieldset>
    <div class="tin-group">
      <button type="button" class="icon-button" aria-label="Undo" title="Undo (Ctrl Z)" disabled=${!pad.canUndo.value} onClick=${() => pad.undo()}><${Icon} name="undo" /></button>
      <button type="button" class="icon-button" aria-label="Redo" title="Redo (Ctrl Shift Z)" disabled=${!pad.canRedo.value} onClick=${() => pad.redo()}><${Icon} name="redo" /></button>
      <button type="button" class="icon-button" aria-label="Clear the page" title="Clear (Shift Delete)" disabled=${pad.empty.value} onClick=${() => pad.clear()}><${Icon} name="clear" /></button>
    </div>
    ${penSeen.value && html`<button type="button" class="finger" aria-pressed=${fingersDraw.value}
      onClick=${() => { fingersDraw.value = !fingersDraw.value; }}><${Icon} name="finger" />${fingersDraw.value ? "Fingers draw" : "Only the pen draws"}</button>`}
  </div>`;
}

/**
 * The keys of the sketch page. Returns how to stop.
 * @param {import("./pad.js").Pad} pad
 * @param {{paint: () => void, live: () => void, help: () => void}} actions
 */
export function hotkeys(pad, actions) {
  /** @param {number} step */
  const resize = (step) => {
    const at = SIZES.findIndex(([value]) => value === size.value) + step;
    size.value = Number(SIZES[Math.min(SIZES.length - 1, Math.max(0, at))][0]);
  };
  /** @type {Record<string, () => void>} */
  const plain = {
    b: () => { tool.value = "pen"; }, e: () => { tool.value = "eraser"; },
    "[": () => resize(-1), "]": () => resize(1), l: actions.live, "?": actions.help,
  };
  /** @param {KeyboardEvent} event */
  const key = (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const typing = target.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=range])");
    const command = event.ctrlKey || event.metaKey;
    if (document.querySelector("dialog[open]")) return;
    if (command && event.key === "Enter") actions.paint();
    else if (typing || event.altKey) return;
    else if (command && event.key.toLowerCase() === "z") event.shiftKey ? pad.redo() : pad.undo();
    else if (command && event.key.toLowerCase() === "y") pad.redo();
    else if (command) return;
    else if (event.shiftKey && (event.key === "Delete" || event.key === "Backspace")) pad.clear();
    else if (COLOURS[Number(event.key) - 1]) [colour.value, tool.value] = [String(COLOURS[Number(event.key) - 1][0]), "pen"];
    else if (plain[event.key.toLowerCase()]) plain[event.key.toLowerCase()]();
    else return;
    event.preventDefault();
  };
  addEventListener("keydown", key);
  return () => removeEventListener("keydown", key);
}

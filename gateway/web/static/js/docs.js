// The API's own description, read from its OpenAPI document: no third party's viewer, no inline script.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { api } from "./api.js";
import { mount } from "./shell.js";
import { html, Icon } from "./ui.js";

const spec = signal(/** @type {any} */ (null));
const failed = signal(false);

/** Follow a reference inside the document. @param {any} schema */
function resolve(schema) {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? { name, ...spec.value.components.schemas[name] } : schema ?? {};
}

/** A type in a few words. @param {any} raw @returns {string} */
function kind(raw) {
  const schema = resolve(raw);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {any} */ one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.name ?? schema.type ?? "anything";
}

/** @param {any} raw */
function limits(raw) {
  const schema = resolve(raw);
  const inner = schema.anyOf?.find((/** @type {any} */ one) => one.type !== "null") ?? schema;
  const words = [];
  if (inner.minimum !== undefined || inner.maximum !== undefined) words.push(`${inner.minimum ?? "…"} to ${inner.maximum ?? "…"}`);
  if (inner.maxLength !== undefined) words.push(`at most ${inner.maxLength} characters`);
  if (schema.default !== undefined && schema.default !== null) words.push(`${JSON.stringify(schema.default)} if left out`);
  return words.join("; ");
}

/** @param {{schema: any, depth?: number}} props */
function Fields({ schema, depth = 0 }) {
  const shape = resolve(schema);
  const fields = Object.entries(shape.properties ?? {});
  if (fields.length === 0) return html`<p class="hint">A JSON object.</p>`;
  return html`<dl class="fields">${fields.map(([name, /** @type {any} */ field]) => {
    const inner = resolve(field.anyOf?.find((/** @type {any} */ one) => one.$ref) ?? field);
    return html`<div><dt><code>${name}</code>${(shape.required ?? []).includes(name) && html`<span class="needed">needed</span>`}<span class="hint">${kind(field)}</span></dt>
      <dd>${words(field.description ?? "")} <span class="hint">${limits(field)}</span>
        ${inner.properties && depth < 2 && html`<${Fields} schema=${inner} depth=${depth + 1} />`}</dd></div>`;
  })}</dl>`;
}

/** Backticks as code, nothing more. @param {string} text */
const words = (text) => text.split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));

/** @param {{path: string, method: string, call: any}} props */
function Call({ path, method, call }) {
  const body = call.requestBody?.content?.["application/json"]?.schema;
  const answers = Object.entries(call.responses ?? {});
  return html`<details class="card call"><summary><span class=${`verb verb-${method}`}>${method.toUpperCase()}</span><code>${path}</code><span class="call-summary">${call.summary ?? ""}</span></summary>
    ${(call.description ?? "").split("\n\n").map((/** @type {string} */ text) => html`<p>${words(text)}</p>`)}
    ${call.parameters?.length > 0 && html`<h4>Parameters</h4><dl class="fields">${call.parameters.map((/** @type {any} */ one) => html`<div><dt><code>${one.name}</code>${one.required && html`<span class="needed">needed</span>`}<span class="hint">in the ${one.in}, ${kind(one.schema)}</span></dt>
      <dd>${words(one.description ?? "")} <span class="hint">${limits(one.schema)}</span></dd></div>`)}</dl>`}
    ${body && html`<h4>Body</h4><${Fields} schema=${body} />`}
    <h4>Answers</h4>${answers.map(([status, /** @type {any} */ answer]) => {
      const shape = resolve(answer.content?.["application/json"]?.schema);
      return html`<p><code>${status}</code> <span class="muted">${answer.description}</span></p>${shape.properties && html`<${Fields} schema=${shape} />`}`;
    })}</details>`;
}

function Docs() {
  useEffect(() => { api("GET", "/v1/openapi.json").then((answer) => { spec.value = answer; }, () => { failed.value = true; }); }, []);
  if (failed.value) return html`<p class="note note-bad" role="alert"><${Icon} name="warn" /><span>The description cannot be read just now.</span></p>`;
  if (!spec.value) return html`<div class="skeleton skeleton-tall"></div>`;
  /** @type {Map<string, any[]>} */
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.value.paths)) {
    for (const [method, call] of Object.entries(/** @type {any} */ (methods))) {
      const tag = call.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), { path, method, call }]);
    }
  }
  return html`${[...groups].map(([tag, calls]) => html`<section class="calls" aria-label=${tag} key=${tag}><h2>${tag}</h2>
    ${calls.map((one) => html`<${Call} key=${one.method + one.path} ...${one} />`)}</section>`)}`;
}

mount(html`<${Docs} />`, "docs");

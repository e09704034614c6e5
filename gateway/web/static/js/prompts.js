// Things to begin with, and manners of painting that are appended to any of them.
import { signal } from "@preact/signals";
import { recall, remember } from "./store.js";

export const DEFAULT_PROMPT = "A friendly llama in a mountain meadow, soft morning light";

export const STYLES = [
  { id: "none", name: "As written", suffix: "" },
  { id: "watercolour", name: "Watercolour", suffix: "loose watercolour on cold-pressed paper, soft bleeding edges" },
  { id: "storybook", name: "Storybook", suffix: "children's book illustration, gouache, warm and gentle" },
  { id: "ink", name: "Ink wash", suffix: "sumi-e ink wash, few confident strokes, much white paper" },
  { id: "oil", name: "Oil", suffix: "oil painting, visible brushwork, rich light" },
  { id: "clay", name: "Clay", suffix: "handmade clay figure, studio light, shallow depth of field" },
  { id: "papercut", name: "Paper cut", suffix: "layered paper cut-out, soft shadows between sheets" },
  { id: "photo", name: "Photo", suffix: "photograph, natural light, 50 mm lens" },
  { id: "linocut", name: "Linocut", suffix: "two-colour linocut print, bold shapes, rough edges" },
];

export const IDEAS = [
  "A friendly llama in a mountain meadow, soft morning light",
  "A lighthouse on a cliff in a storm, lamp lit, gulls in the wind",
  "A crooked little house with a garden full of sunflowers",
  "A sleeping fox curled up in autumn leaves",
  "A paper boat on a rain puddle that reflects the city",
  "A teapot shaped like an elephant on a wooden table",
  "A night train crossing a viaduct under the stars",
  "A whale swimming through clouds above small islands",
  "A cat in a space suit looking out of a round window",
  "A market stall with lemons, figs and blue ceramics",
  "A dragon the size of a sparrow on somebody's hand",
  "An old tree with a door and a lantern in its trunk",
];

/** @type {import("@preact/signals").Signal<string[]>} newest first */
export const used = signal(JSON.parse(recall("prompts") ?? "[]"));

/** @param {string} prompt */
export function rememberPrompt(prompt) {
  used.value = [prompt, ...used.value.filter((one) => one !== prompt)].slice(0, 12);
  remember("prompts", JSON.stringify(used.value));
}

// The fields that say how a text is continued. Kept in this browser, the key never among them.

import { create } from "./dom.js";

const NAME = "nkat.samplers";

const NUMBERS = [
  { name: "max_length", label: "Length (tokens)", min: 1, max: 1048576, step: 1 },
  { name: "temperature", label: "Temperature", min: 0, max: 10, step: 0.05 },
  { name: "top_p", label: "Top-p", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top-k", min: 0, max: 1000000, step: 1 },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01 },
  { name: "rep_pen", label: "Repetition penalty", min: 1, max: 3, step: 0.01 },
  { name: "sampler_seed", label: "Seed", min: 1, max: 4294967295, step: 1 },
];

const STOP = "stop_sequence";

/** The sampler fields inside a container. */
export class Samplers {
  #inputs = new Map();

  /** Builds the fields and fills them with what was kept. */
  constructor(container) {
    for (const { name, label, min, max, step } of NUMBERS) {
      const attributes = { type: "number", inputmode: "decimal", min, max, step };
      this.#add(container, name, label, create("input", attributes));
    }
    const stop = create("textarea", { rows: 2, spellcheck: "false", placeholder: "one a line; \\n is a line break" });
    this.#add(container, STOP, "Stop strings", stop, "wide");
    this.#recall();
    container.addEventListener("input", () => this.#remember());
  }

  /** The fields of a request that the user has filled in. Throws an Error in one line for a bad one. */
  fields() {
    const fields = {};
    for (const { name, label, min, max } of NUMBERS) {
      const input = this.#inputs.get(name);
      if (input.validity.badInput) throw new Error(`${label} must be a number.`);
      if (input.value === "") continue;
      const value = Number(input.value);
      if (value < min || value > max) throw new Error(`${label} must lie between ${min} and ${max}.`);
      fields[name] = value;
    }
    const stops = this.#inputs.get(STOP).value.split("\n").filter((line) => line !== "");
    if (stops.length > 0) fields[STOP] = stops.map((line) => line.replaceAll("\\n", "\n"));
    return fields;
  }

  /** Show in empty fields what the server takes then: values by name, as far as it says. */
  showDefaults(defaults) {
    for (const { name } of NUMBERS) {
      this.#inputs.get(name).placeholder = defaults[name] === undefined ? "server's choice" : String(defaults[name]);
    }
  }

  /** Empty all fields, and forget what was kept. */
  reset() {
    for (const input of this.#inputs.values()) input.value = "";
    this.#remember();
  }

  #add(container, name, label, input, place = null) {
    input.id = `sampler-${name}`;
    this.#inputs.set(name, input);
    container.append(create("div", { class: place }, create("label", { for: input.id }, label), input));
  }

  #remember() {
    const values = [...this.#inputs].map(([name, input]) => [name, input.value]);
    try {
      localStorage.setItem(NAME, JSON.stringify(Object.fromEntries(values)));
    } catch {
      // Storage may be full or forbidden; the fields work without it.
    }
  }

  #recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(NAME) ?? "{}");
      for (const [name, input] of this.#inputs) {
        if (typeof kept[name] === "string") input.value = kept[name];
      }
    } catch {
      // Not ours, or forbidden.
    }
  }
}

// Theta of the running model: its switch, its strength, and two replies side by side.

import { askJson } from "./server.js";
import { byId, showError } from "./dom.js";
import { ReplyView } from "./reply.js";

const PATH = "api/nkat/theta";
const LARGEST_SEED = 2 ** 31;

/** The switch and the slider. What they say holds for later requests of all clients that do not choose. */
export class ThetaSwitch {
  #card = byId("theta");
  #on = byId("theta-on");
  #gamma = byId("gamma");
  #shown = byId("gamma-shown");

  /** `onChange` is called after the server has changed something. */
  constructor(onChange) {
    this.#gamma.addEventListener("input", () => { this.#shown.textContent = this.#gamma.value; });
    this.#gamma.addEventListener("change", () => this.#change({ gamma: Number(this.#gamma.value) }, onChange));
    this.#on.addEventListener("change", () => this.#change({ enabled: this.#on.checked }, onChange));
  }

  /** Show the state of theta; null hides all of it. */
  show(theta) {
    this.#card.hidden = theta === null;
    // Not under the user's hand.
    if (theta === null || this.#card.contains(document.activeElement)) return;
    this.#set(theta);
  }

  #set({ enabled, gamma }) {
    this.#on.checked = enabled;
    this.#gamma.value = String(gamma);
    this.#shown.textContent = String(gamma);
  }

  async #change(wanted, onChange) {
    try {
      this.#set(await askJson(PATH, { body: wanted }));
      showError(null);
    } catch (error) {
      showError(error.message);
    }
    onChange();
  }
}

/** The same prompt and seed without theta and with it, one after the other; others notice nothing. */
export class Comparison {
  #off = new ReplyView(byId("reply-off"), byId("rate-off"));
  #on = new ReplyView(byId("reply-on"), byId("rate-on"));
  #note = byId("compare-note");
  #aborted = false;
  #running = null;

  /** Run both and dim what they have in common. Throws `ServerError`. */
  async run(fields) {
    const seeded = { sampler_seed: 1 + Math.floor(Math.random() * (LARGEST_SEED - 1)), ...fields };
    this.#aborted = false;
    this.#off.clear();
    this.#on.clear();
    this.#note.textContent = "";
    await this.#runOne(this.#off, { ...seeded, theta: false });
    await this.#runOne(this.#on, { ...seeded, theta: true });
    if (!this.#aborted) this.#tellDifference(seeded.sampler_seed);
  }

  /** End what runs, and do not start the rest. */
  async abort() {
    this.#aborted = true;
    await this.#running?.abort();
  }

  async #runOne(view, fields) {
    if (this.#aborted) return;
    await view.run(fields, (generation) => { this.#running = generation; });
  }

  #tellDifference(seed) {
    const [off, on] = [[...this.#off.text], [...this.#on.text]];
    let same = 0;
    while (same < off.length && same < on.length && off[same] === on[same]) same += 1;
    const start = off.slice(0, same).join("").length;
    this.#off.dimUntil(start);
    this.#on.dimUntil(start);
    const parted = same < Math.max(off.length, on.length);
    this.#note.textContent = parted ? `Seed ${seed}: they part after ${same} characters.` : `Seed ${seed}: no difference.`;
  }
}

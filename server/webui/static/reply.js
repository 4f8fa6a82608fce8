// A reply on the page, while it comes and afterwards.

import { create } from "./dom.js";
import { Generation } from "./generation.js";
import { Rate } from "./rate.js";

// Laying out a long text takes longer than a fast model takes for a token.
const PAUSE = 40; // milliseconds between two changes of the page

/** The place where one reply is shown, and the words on its speed beside it. */
export class ReplyView {
  #output;
  #rate;
  #text = document.createTextNode("");
  #unseen = "";

  /** `output` takes the text, `rate` the speed. */
  constructor(output, rate) {
    this.#output = output;
    this.#rate = rate;
  }

  /** The text shown. */
  get text() {
    return this.#output.textContent;
  }

  /** Show nothing. */
  clear() {
    this.#text.data = "";
    this.#output.replaceChildren();
    this.#rate.textContent = "";
  }

  /** Ask for a continuation and show it as it comes. `onStart` gets the `Generation`. Throws `ServerError`. */
  async run(fields, onStart) {
    this.clear();
    const generation = new Generation(fields);
    const rate = new Rate();
    let timer = null;
    this.#output.append(this.#text);
    this.#output.ariaBusy = "true";
    onStart(generation);
    const show = () => {
      timer = null;
      this.#append(rate);
    };
    try {
      for await (const piece of generation.pieces()) {
        this.#unseen += piece;
        rate.tick();
        timer ??= setTimeout(show, PAUSE);
      }
    } finally {
      clearTimeout(timer);
      this.#append(rate);
      this.#output.ariaBusy = "false";
    }
  }

  /** Dim the beginning of the text, so many UTF-16 units of it: what another reply says as well. */
  dimUntil(end) {
    const text = this.text;
    this.#output.replaceChildren(create("span", { class: "same" }, text.slice(0, end)), text.slice(end));
  }

  #append(rate) {
    const atEnd = this.#isAtEnd();
    this.#text.appendData(this.#unseen);
    this.#unseen = "";
    this.#rate.textContent = String(rate);
    if (atEnd) this.#output.scrollTop = this.#output.scrollHeight;
  }

  // Whoever has scrolled back to read is left there.
  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#output;
    return scrollHeight - scrollTop - clientHeight < 24;
  }
}

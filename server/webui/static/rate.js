// Tokens per second of a stream, as the page sees it.

/** Counts pieces of a stream. One piece is one token unless the network joined several. */
export class Rate {
  #first = 0;
  #last = 0;
  #count = 0;

  /** Another piece came. */
  tick(now = performance.now()) {
    if (this.#count === 0) this.#first = now;
    this.#last = now;
    this.#count += 1;
  }

  /** In words; empty before two pieces have come. */
  toString() {
    const seconds = (this.#last - this.#first) / 1000;
    if (this.#count < 2 || seconds <= 0) return "";
    return `≈ ${((this.#count - 1) / seconds).toFixed(1)} tokens/s`;
  }
}

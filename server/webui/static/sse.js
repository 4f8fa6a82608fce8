// Server-sent events out of the pieces of a response, however they were cut.

/** Collects text and gives back the data of the events that it completes. */
export class EventParser {
  #rest = "";
  #data = [];

  /** Take the next piece of text; the data of each event that ends in it, in order. */
  push(text) {
    // A CR at the end may be half a CRLF: it waits for the next piece.
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line !== "") {
        this.#take(line);
      } else if (this.#data.length > 0) {
        events.push(this.#data.join("\n"));
        this.#data = [];
      }
    }
    return events;
  }

  #take(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    if (name !== "data") return;
    this.#data.push(colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, ""));
  }
}

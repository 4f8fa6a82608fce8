// One generation: asked for, heard piece by piece, and ended early if need be.

import { ask, ServerError } from "./server.js";
import { EventParser } from "./sse.js";

// An engine that does not answer must not keep the user waiting.
const ABORT_PATIENCE = 3000; // milliseconds

/** A continuation of a prompt by Kobold's stream, under a name of its own. */
export class Generation {
  #fields;
  #genkey = `NKAT${randomHex(8)}`;
  #hangUp = new AbortController();

  /** `fields`: of the request, but for its name. */
  constructor(fields) {
    this.#fields = fields;
  }

  /** The pieces of the reply as they come; ends early after `abort`. Throws `ServerError`. */
  async *pieces() {
    try {
      const body = { ...this.#fields, genkey: this.#genkey };
      const response = await ask("api/extra/generate/stream", { body, signal: this.#hangUp.signal });
      const parser = new EventParser();
      const decoder = new TextDecoder();
      for await (const bytes of chunks(response.body)) {
        for (const data of parser.push(decoder.decode(bytes, { stream: true }))) {
          const { token, finish_reason: finish } = JSON.parse(data);
          if (token) yield token;
          if (finish === "error") throw new ServerError("The engine has failed; the server's log says more.", 500);
        }
      }
    } catch (error) {
      if (this.#hangUp.signal.aborted) return;
      throw error instanceof ServerError ? error : new ServerError(`The reply broke off: ${error.message}`, 0);
    }
  }

  /** End the generation on the server, then hang up. Never throws: hanging up alone ends it, too. */
  async abort() {
    try {
      await ask("api/extra/abort", { body: { genkey: this.#genkey }, signal: AbortSignal.timeout(ABORT_PATIENCE) });
    } catch {
      // What matters is done below.
    } finally {
      this.#hangUp.abort();
    }
  }
}

// Not every browser iterates over a stream by itself.
async function* chunks(stream) {
  const reader = stream.getReader();
  let read = null;
  try {
    for (read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } finally {
    // After the end it would abort a request that the browser has not quite put away.
    if (!read?.done) reader.cancel().catch(() => {});
  }
}

function randomHex(count) {
  // Not crypto.randomUUID: it is missing on pages that come by plain HTTP.
  const bytes = crypto.getRandomValues(new Uint8Array(count));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Where the server is, and how it is asked. Knows addresses, the key and errors, no endpoint.

import { key } from "./key.js";

// Relative to this file, not to the page, whose address has several spellings.
const base = new URL("../", import.meta.url);

const LONGEST_MESSAGE = 300;

/** An answer that is no success, or none at all. `message` is one line for the user. */
export class ServerError extends Error {
  /** `status`: of the answer; 0 when there was none. */
  constructor(message, status) {
    super(message);
    this.name = "ServerError";
    this.status = status;
  }
}

/** The server's own address, without a slash at its end. */
export function serverAddress() {
  return base.href.replace(/\/$/, "");
}

/** The answer to a GET, or to a POST of `body` as JSON. Throws `ServerError`, and AbortError by `signal`. */
export async function ask(path, { body, signal } = {}) {
  const headers = { ...authorization() };
  const options = { headers, signal };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(new URL(path, base), options);
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    throw new ServerError("The server cannot be reached.", 0);
  }
  if (!response.ok) throw new ServerError(await explanation(response), response.status);
  return response;
}

/** The JSON that `ask` gets. */
export async function askJson(path, options) {
  const response = await ask(path, options);
  return response.json();
}

function authorization() {
  const given = key();
  if (given === "") return {};
  // The server compares UTF-8 bytes, and a header takes bytes only in the form of Latin-1 characters.
  const bytes = new TextEncoder().encode(given);
  return { Authorization: `Bearer ${Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")}` };
}

async function explanation(response) {
  const fallback = `The server answered ${response.status} ${response.statusText}`.trimEnd();
  let said = "";
  try {
    const { detail, error } = await response.json();
    said = detail?.msg ?? error?.message ?? "";
  } catch {
    // No JSON: the status has to do.
  }
  const line = String(said).replace(/\s+/g, " ").trim();
  return line === "" ? fallback : line.slice(0, LONGEST_MESSAGE);
}

// What the server says of itself, asked for gently and only while somebody looks.

import { askJson } from "./server.js";
import { byId, showRows } from "./dom.js";

const CALM = 5000; // milliseconds between two questions
const BUSY = 1000;

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const WHOLE = new Intl.NumberFormat("en");

/** Asks again and again, shows the answers, and tells `onStatus` each of them. */
export class StatusWatch {
  #onStatus;
  #timer = null;
  #asking = false;
  #busy = false;

  /** Starts at once. `onStatus` gets what `GET api/nkat/status` answers. */
  constructor(onStatus) {
    this.#onStatus = onStatus;
    document.addEventListener("visibilitychange", () => this.refresh());
    this.refresh();
  }

  /** Ask now, and more often while `busy`: the page itself waits for text. */
  setBusy(busy) {
    this.#busy = busy;
    this.refresh();
  }

  /** Ask now, unless that is under way or nobody looks. */
  async refresh() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#asking) return;
    this.#asking = true;
    let pause = CALM;
    try {
      const [status, speed] = await Promise.all([askJson("api/nkat/status"), askJson("api/extra/perf")]);
      showState(status);
      showFacts(status);
      showSpeed(speed);
      this.#onStatus(status);
      if (this.#busy || status.open > 0) pause = BUSY;
    } catch {
      showUnreachable();
    } finally {
      this.#asking = false;
    }
    // It may have been hidden meanwhile; then the return of the page asks again.
    if (!document.hidden) this.#timer = setTimeout(() => this.refresh(), pause);
  }
}

function showState({ open, waiting }) {
  const running = open - waiting;
  const queue = waiting > 0 ? `, ${waiting} waiting` : "";
  setState(open > 0 ? "busy" : "ready", open > 0 ? `Writing: ${running}${queue}` : "Ready");
}

function showUnreachable() {
  setState("lost", "Not reachable");
}

function setState(state, text) {
  const pill = byId("state");
  if (pill.textContent !== text) pill.textContent = text; // Equal text would be read aloud again.
  pill.dataset.state = state;
}

function showFacts(status) {
  byId("model").textContent = status.model;
  byId("version").textContent = `NKAT ${status.version}`;
  document.title = `${status.model} · NKAT`;
  const { backend, theta } = status;
  showRows(byId("facts"), [
    ["Architecture", status.architecture],
    ["Quantisation", status.quantization],
    ["Parameters", COMPACT.format(status.parameters)],
    ["Context", `${WHOLE.format(status.context_length)} tokens`],
    ["Device", `${backend.device}, ${backend.threads} ${backend.threads === 1 ? "thread" : "threads"}`],
    ["Kernels", backend.kernels],
    ["Theta", theta === null ? "none" : thetaInWords(theta)],
  ]);
}

function thetaInWords({ enabled, gamma, rank }) {
  const strength = `rank ${rank}, gamma ${gamma}`;
  return enabled ? strength : `off (${strength})`;
}

function showSpeed(perf) {
  byId("speed-made").textContent = perf.last_eval_speed > 0 ? perf.last_eval_speed.toFixed(1) : "–";
  byId("speed-read").textContent = perf.last_process_speed > 0 ? perf.last_process_speed.toFixed(0) : "–";
  showRows(byId("counters"), [
    ["Last reply", perf.total_gens > 0 ? `${WHOLE.format(perf.last_token_count)} tokens` : null],
    ["Replies so far", WHOLE.format(perf.total_gens)],
    ["In the queue", WHOLE.format(perf.queue)],
    ["Up for", duration(perf.uptime)],
  ]);
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

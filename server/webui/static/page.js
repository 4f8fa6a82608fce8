// The page with the prompt box: brings its parts together.

import { byId, showError } from "./dom.js";
import { key, setKey } from "./key.js";
import { ReplyView } from "./reply.js";
import { Samplers } from "./samplers.js";
import { showConnect } from "./connect.js";
import { StatusWatch } from "./status.js";
import { Comparison, ThetaSwitch } from "./theta.js";

const prompt = byId("prompt");
const samplers = new Samplers(byId("samplers"));
const reply = new ReplyView(byId("reply"), byId("rate"));
const comparison = new Comparison();
const thetaSwitch = new ThetaSwitch(() => watch.refresh());
const watch = new StatusWatch(show);

let running = null;
let locked = null;

function show(status) {
  byId("lite-link").hidden = !status.lite;
  byId("key-form").hidden = !status.protected;
  byId("compare").hidden = status.theta === null;
  thetaSwitch.show(status.theta);
  samplers.showDefaults(status.sampling_defaults);
  if (locked !== status.protected) {
    locked = status.protected;
    showConnect(locked);
  }
}

/** Do `work` with the buttons set for it, and show what goes wrong. */
async function occupied(abortButton, work) {
  setBusy(abortButton, true);
  watch.setBusy(true);
  showError(null);
  try {
    await work({ prompt: prompt.value, ...samplers.fields() });
  } catch (error) {
    showError(error.message);
    if (error.status === 401) byId("key").focus();
  } finally {
    setBusy(abortButton, false);
    watch.setBusy(false);
  }
}

function setBusy(abortButton, busy) {
  byId("generate").disabled = busy;
  byId("compare-start").disabled = busy;
  abortButton.disabled = !busy;
  byId("append").disabled = busy || reply.text === "";
}

function write() {
  return occupied(byId("abort"), (fields) => reply.run(fields, (generation) => {
    running = generation;
  }));
}

byId("write-form").addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});

prompt.addEventListener("keydown", (event) => {
  const wanted = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (wanted && !byId("generate").disabled) write();
});

byId("abort").addEventListener("click", () => running?.abort());

byId("append").addEventListener("click", () => {
  prompt.value += reply.text;
  reply.clear();
  byId("append").disabled = true;
  prompt.focus();
  prompt.scrollTop = prompt.scrollHeight;
});

byId("reset").addEventListener("click", () => samplers.reset());

byId("compare-start").addEventListener("click", () => {
  occupied(byId("compare-abort"), (fields) => comparison.run(fields));
});

byId("compare-abort").addEventListener("click", () => comparison.abort());

byId("key").value = key();
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  showError(null);
  watch.refresh();
});

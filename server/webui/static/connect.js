// How other programs connect, with this server's own address.

import { byId, create } from "./dom.js";
import { serverAddress } from "./server.js";

/** Show the lines; `locked`: the server asks for a key. */
export function showConnect(locked) {
  const address = serverAddress();
  const header = locked ? " \\\n  -H 'Authorization: Bearer KEY'" : "";
  const body = '{"prompt": "Once upon a time", "max_length": 40}';
  byId("connect").replaceChildren(
    line("KoboldAI Lite, SillyTavern (KoboldCpp)", address),
    line("OpenAI clients: base URL", `${address}/v1`),
    line("Command line", `curl ${address}/api/v1/generate${header} \\\n  -d '${body}'`),
  );
}

function line(label, text) {
  const row = create("div", { class: "row" }, create("pre", {}, create("code", {}, text)));
  // The clipboard is there on pages that came by HTTPS or from this machine only.
  if (navigator.clipboard) row.append(copyButton(label, text));
  return create("div", { class: "line" }, create("p", { class: "label" }, label), row);
}

function copyButton(label, text) {
  const button = create("button", { type: "button", class: "plain", "aria-label": `Copy: ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

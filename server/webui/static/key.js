// The key that the user gave. It lives as long as the tab and is written nowhere else.

const NAME = "nkat.key";

let held = read();

function read() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return ""; // Storage may be forbidden; the key then lasts until the page is loaded anew.
  }
}

/** The key; empty for none. */
export function key() {
  return held;
}

/** Use `given` from now on, without what no header can carry; empty forgets the key. */
export function setKey(given) {
  held = given.replace(/[\u0000-\u001f\u007f]/g, "").trim();
  try {
    if (held === "") sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, held);
  } catch {
    // See above.
  }
}

// One key for what is also a button or a link. Keys rest in fields, and while Ctrl, Alt or Meta is held.
import { close, isOpen } from "./drawer.js";
import { currentRow, move, selectedCount, toggle, unselect } from "./lists.js";

const GO_MS = 1500; // how long "g" waits for the second key

let isGoing = false;
let timer = 0;

const isField = (element) => element?.matches?.("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");

function go(key) {
  const link = document.querySelector(`[data-go="g ${CSS.escape(key)}"]`);
  if (link) link.click();
  return Boolean(link);
}

// The button for `key` on what is selected, else on what is open, else on the page.
function act(key) {
  const selector = `[data-key="${CSS.escape(key)}"]:not([disabled])`;
  const bulk = selectedCount() ? document.querySelector(`.bulk ${selector}`) : null;
  const found = bulk ?? (isOpen() ? document.querySelector(`#drawer ${selector}`) : null)
    ?? currentRow()?.querySelector(selector)
    ?? [...document.querySelectorAll(selector)].find((button) => !button.closest(".bulk, #drawer"));
  if (found?.matches("summary")) write(found.parentElement);
  else found?.click();
  return Boolean(found);
}

// What is folded away behind a summary, to be written in.
function write(details) {
  details.open = true;
  details.querySelector("textarea, input:not([type=hidden])")?.focus();
}

function help() {
  document.getElementById("keys")?.showModal();
  return true;
}

function escape() {
  if (document.querySelector("dialog[open]")) return false; // the browser closes it
  if (isOpen()) close();
  else if (selectedCount()) unselect();
  else return false;
  return true;
}

const KEYS = {
  "?": help,
  "/": () => {
    const field = document.querySelector("[data-search]");
    if (!field) document.querySelector("[data-find]")?.click();
    field?.focus();
    field?.setSelectionRange(field.value.length, field.value.length);
    return true;
  },
  j: () => { move(1); return true; },
  k: () => { move(-1); return true; },
  x: () => { toggle(); return true; },
  r: () => act("r"),
  n: () => act("n"),
  t: () => act("t"),
  e: () => act("e"),
  Escape: escape,
};

export function startKeys() {
  for (const opener of document.querySelectorAll("[data-opens]")) {
    opener.hidden = false;
    opener.addEventListener("click", help);
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (isField(event.target)) {
      if (event.key === "Escape" && event.target.matches("[data-search]")) event.target.blur();
      return;
    }
    const isSecond = isGoing;
    isGoing = false;
    clearTimeout(timer);
    if (document.querySelector("dialog[open]")) return;
    if (isSecond && go(event.key)) {
      event.preventDefault();
      return;
    }
    if (event.key === "g") {
      isGoing = true;
      timer = setTimeout(() => { isGoing = false; }, GO_MS);
      return;
    }
    if (KEYS[event.key]?.()) event.preventDefault();
  });
}

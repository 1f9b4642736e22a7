// Keeps the parts of a page fresh. The server says over a websocket which rows changed (ids, nothing else); the parts
// are then fetched as they are. Updates pause while rows are selected, a dialog is open or somebody writes. A gap in the
// numbers of the events, a new connection and a slow beat fetch everything; without websockets a quicker beat does.
import { refresh } from "./parts.js";
import { selectedCount } from "./lists.js";

const TOGETHER_MS = 700; // events that come together cause one fetch
const APART_MS = 2000; // a flood of events causes no more than one fetch in this time
const REST = 10; // a slow server is asked less often: after a fetch of 1 s not before 10 s
const BEAT_MS = 30000; // ages go on, and some things (a worker that fell silent) nobody announces
const POLL_MS = 10000; // without a websocket, and for parts that say data-quick
const MAX_WAIT_MS = 15000;
const SIGNED_OUT = 4403;

const parts = () => [...document.querySelectorAll("[data-refresh]")];
const topics = () => (document.getElementById("main")?.dataset.topics ?? "").split(/\s+/).filter(Boolean);

let isOutdated = false;
let isConnected = false;
let hasFailed = false;
let timer = 0;
let isFetching = false;
let lastAt = 0;
let apartMs = APART_MS;

function whyPaused() {
  if (selectedCount()) return "Updates paused while rows are selected";
  if (document.querySelector("dialog[open]")) return "Updates paused";
  const at = document.activeElement;
  if (at?.closest("[data-refresh]") && at.matches("input:not([type=checkbox]):not([type=radio]), textarea, select")) return "Updates paused while you write";
  const selection = getSelection();
  if (selection && !selection.isCollapsed && document.querySelector("[data-refresh]")?.contains(selection.anchorNode)) return "Updates paused while text is selected";
  return "";
}

function say() {
  const why = whyPaused();
  for (const box of document.querySelectorAll("[data-live]")) {
    const state = box.querySelector(".live-state");
    const words = hasFailed ? "Could not be refreshed" : why || (isConnected ? "Live" : "Every 10 s");
    if (state.textContent !== words) state.textContent = words;
    box.classList.toggle("is-paused", Boolean(why) || hasFailed);
    box.querySelector("[data-update]").hidden = !(hasFailed || (why && isOutdated));
    box.querySelector("[data-update]").textContent = hasFailed ? "Try again" : "Update now";
    box.hidden = false;
  }
}

export async function refreshAll() {
  if (isFetching) {
    isOutdated = true;
    return;
  }
  isFetching = true;
  isOutdated = false;
  const beganAt = Date.now();
  const results = [];
  for (const part of parts()) results.push(await refresh(part));
  hasFailed = results.includes(false);
  isFetching = false;
  lastAt = Date.now();
  apartMs = Math.min(Math.max(APART_MS, REST * (lastAt - beganAt)), BEAT_MS);
  say();
  if (isOutdated) soon();
}

function soon() {
  isOutdated = true;
  if (timer) return; // put off by each event, a flood would put it off for ever
  timer = setTimeout(() => {
    timer = 0;
    if (document.hidden || whyPaused()) return say();
    refreshAll();
  }, Math.max(TOGETHER_MS, lastAt + apartMs - Date.now()));
}

// -- the websocket ----

const lastFrom = new Map(); // process → number of its last event
let failures = 0;
let socket = null;

export const isListening = () => isConnected;

// Say something to the server, which is all it takes: what cannot be said now is not said later.
export function tell(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function hear(event) {
  if (event.type !== "changed") {
    document.dispatchEvent(new CustomEvent("pw:heard", { detail: event }));
    return;
  }
  const last = lastFrom.get(event.from);
  lastFrom.set(event.from, event.number);
  const isGap = last !== undefined && event.number !== last + 1;
  if (isGap || topics().includes(event.topic)) soon();
}

function connect() {
  const address = new URL(`/ws/live/?topics=${topics().join(",")}`, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const { talk } = document.getElementById("main").dataset;
  if (talk) address.searchParams.set("talk", talk);
  socket = new WebSocket(address);
  socket.onopen = () => {
    failures = 0;
    isConnected = true;
    lastFrom.clear();
    say();
    document.dispatchEvent(new CustomEvent("pw:live"));
    soon(); // something may have changed while nobody listened, on the page's way here too
  };
  socket.onmessage = (message) => hear(JSON.parse(message.data));
  socket.onclose = (event) => {
    isConnected = false;
    say();
    if (event.code === SIGNED_OUT) return location.reload();
    const wait = Math.min(1000 * 2 ** failures, MAX_WAIT_MS) * (0.75 + Math.random() / 2);
    failures += 1;
    setTimeout(connect, wait);
  };
}

export function startLive() {
  if (!topics().length) return;
  connect();
  let passed = 0;
  setInterval(() => {
    passed += POLL_MS;
    if (!isConnected || passed >= BEAT_MS || document.querySelector("[data-quick]")) {
      passed = 0;
      soon();
    }
  }, POLL_MS);
  document.addEventListener("visibilitychange", () => !document.hidden && isOutdated && soon());
  document.addEventListener("pw:selected", () => (isOutdated && !whyPaused() ? soon() : say()));
  document.getElementById("question")?.addEventListener("close", () => isOutdated && soon());
  document.addEventListener("focusout", () => isOutdated && soon());
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-update]")) return;
    document.dispatchEvent(new CustomEvent("pw:unselect"));
    refreshAll();
  });
  say();
}

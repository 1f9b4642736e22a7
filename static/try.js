// "Try it": send over a websocket (by the form's own way where there is none), read the conversation from the server.
//
// The server's page is the only picture of the conversation. This script adds what the page cannot know: messages on
// their way to the server ("sending…"). Each keeps the id it was given here until the server says that it is stored,
// and is sent again, under that id, after every reconnect and reload; so it arrives, and counts once.
"use strict";

(() => {
  const form = document.getElementById("composer");
  const text = form.elements.text;
  const log = document.getElementById("log");
  const outgoing = document.getElementById("outgoing");
  const typing = document.getElementById("typing");
  const preview = document.getElementById("preview");
  const connection = document.getElementById("connection");
  const { page, store, bot } = form.dataset;

  const SIGNED_OUT = 4403;
  const NO_BOT = 4404;
  const LOOK_AGAIN_MS = 2000; // while something on the page will change by itself
  const SEND_AGAIN_MS = 3000; // after the server could not store a message
  const TYPING_MS = 6000; // a little longer than the server's interval
  const MAX_WAIT_MS = 15000; // between two attempts to connect
  const PATIENCE = 2; // failed attempts after which there seem to be no websockets here

  // -- messages that the server has not confirmed ----

  const unsent = new Map(JSON.parse(sessionStorage.getItem(store) || "[]")); // id → text

  function keep() {
    try {
      sessionStorage.setItem(store, JSON.stringify([...unsent]));
    } catch (error) {
      console.info(`Unsent messages would not survive a reload: ${error.name}`); // the storage is full
    }
  }

  function bubbleOf(id) {
    return document.getElementById(`sending-${id}`);
  }

  function showSending(id, words) {
    const bubble = document.getElementById("sending").content.firstElementChild.cloneNode(true);
    bubble.id = `sending-${id}`;
    bubble.querySelector(".bubble-text").textContent = words;
    outgoing.append(bubble);
  }

  function say(id, words, tone) {
    const badge = bubbleOf(id)?.querySelector(".badge");
    if (badge) {
      badge.textContent = words;
      badge.className = `badge tone-${tone}`;
    }
  }

  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // -- what the bot is writing: no part of the conversation yet, so it is gone after a reload ----

  function showPreview(words) {
    if (!words) return preview.replaceChildren();
    if (!preview.firstElementChild) preview.append(document.getElementById("writing").content.cloneNode(true));
    preview.querySelector(".bubble-text").textContent = words;
  }

  // -- the conversation, as the server has it ----

  let isReading = false;
  let readAgain = false;
  let timer = 0;

  async function refresh() {
    readAgain = true;
    if (isReading) return;
    isReading = true;
    while (readAgain) {
      readAgain = false;
      await read();
    }
    isReading = false;
    clearTimeout(timer);
    if (log.querySelector(".is-open")) timer = setTimeout(refresh, LOOK_AGAIN_MS);
  }

  async function read() {
    let response, html;
    try {
      response = await fetch(page, { headers: { "HX-Request": "true" } });
      html = await response.text();
    } catch {
      return; // no connection: the socket will notice, and reading follows when it is back
    }
    if (response.redirected || response.headers.has("HX-Redirect") || response.status === 403) return end("You are signed out.");
    if (response.status === 404) return end(`${bot} is gone.`);
    if (response.ok) show(new DOMParser().parseFromString(html, "text/html"));
  }

  // Changes only what changed: a selection stays, and a screen reader hears what is new.
  function show(fresh) {
    replaceIfChanged(document.getElementById("chat-head"), fresh.getElementById("chat-head"));
    const items = [...fresh.querySelectorAll("#log > li")];
    const ids = new Set(items.map((item) => item.id));
    for (const shown of [...log.children]) if (!ids.has(shown.id)) shown.remove();
    items.forEach((item, place) => {
      const shown = document.getElementById(item.id);
      if (shown) replaceIfChanged(shown, item);
      else log.insertBefore(item, log.children[place] ?? null);
    });
    for (const bubble of [...outgoing.children]) {
      if (ids.has(bubble.id.replace("sending-", "in-"))) bubble.remove();
    }
  }

  function replaceIfChanged(shown, fresh) {
    if (shown.outerHTML !== fresh.outerHTML) shown.replaceWith(fresh);
  }

  // -- the socket ----

  let socket = null;
  let failures = 0;
  let hasEverConnected = false;
  let hasEnded = false;

  function connect() {
    const address = new URL(form.dataset.socket, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    socket.onopen = () => {
      failures = 0;
      hasEverConnected = true;
      connection.textContent = "Connected.";
      for (const [id, words] of unsent) transmit(id, words);
      refresh();
    };
    socket.onmessage = (event) => hear(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (hasEnded) return;
      if (event.code === SIGNED_OUT) return end("You are signed out.");
      if (event.code === NO_BOT) return end(`${bot} is disabled, or gone.`);
      const wait = Math.min(500 * 2 ** failures, MAX_WAIT_MS) * (0.75 + Math.random() / 2);
      failures += 1;
      connection.textContent = "Not connected; trying again…";
      for (const [id, words] of unsent) transmit(id, words);
      refresh(); // also tells whether the session has ended
      setTimeout(connect, wait);
    };
  }

  function end(why) {
    hasEnded = true;
    connection.textContent = `${why} `;
    const link = document.createElement("a");
    link.href = page;
    link.textContent = "Open this page again";
    connection.append(link);
    text.disabled = true;
    socket.close();
  }

  function transmit(id, words) {
    const isOpen = socket.readyState === WebSocket.OPEN;
    if (!isOpen && (hasEverConnected || failures <= PATIENCE)) return say(id, "waits for the connection", "warn");
    say(id, "sending…", "busy");
    if (isOpen) socket.send(JSON.stringify({ id, text: words }));
    else post(id, words);
  }

  async function post(id, words) {
    const fields = new FormData(form);
    fields.set("id", id);
    fields.set("text", words);
    const response = await fetch(form.action, { method: "POST", body: fields }).catch(() => null);
    const isStored = response?.ok && new URL(response.url).pathname === page; // elsewhere: sent to sign in
    if (isStored) hearing.received({ id });
    else say(id, "waits for the connection", "warn"); // tried again with the next attempt to connect
  }

  const hearing = {
    received({ id }) {
      unsent.delete(id);
      keep();
      say(id, "received", "busy");
      refresh();
    },
    message() {
      typing.textContent = "";
      showPreview("");
      refresh();
    },
    preview({ text: words }) {
      typing.textContent = "";
      showPreview(words);
    },
    typing() {
      typing.textContent = `${bot} is writing…`;
      clearTimeout(typing.timer);
      typing.timer = setTimeout(() => { typing.textContent = ""; }, TYPING_MS);
    },
    error({ code, id, text: why }) {
      if (code === "not_stored" && unsent.has(id)) {
        say(id, why, "warn");
        setTimeout(() => unsent.has(id) && transmit(id, unsent.get(id)), SEND_AGAIN_MS);
        return;
      }
      unsent.delete(id);
      keep();
      if (id) say(id, `not sent: ${why}`, "bad");
      else connection.textContent = why;
    },
  };

  function hear(event) {
    hearing[event.type]?.(event);
  }

  // -- the composer ----

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const words = text.value;
    if (!words.trim() || hasEnded) return;
    const id = newId();
    unsent.set(id, words);
    keep();
    showSending(id, words);
    transmit(id, words);
    text.value = "";
  });

  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  document.querySelector(".with-script").hidden = false;
  connection.textContent = "Connecting…";
  for (const [id, words] of unsent) showSending(id, words);
  connect();
})();

// The timeline of a conversation. Pages before and after it are added in place, nothing moves under the reader's eyes
// when something is added above or below, and the pill counts what arrives out of sight. Without script the same links
// lead to pages of their own.

const SLACK_PX = 32; // so near to the end counts as there

const box = () => document.getElementById("talk-scroll");
const log = () => document.getElementById("said");
const pill = () => document.getElementById("pill");
const more = (which) => document.querySelector(`#timeline [data-more="${which}"]`)?.closest("p") ?? null;
const isDay = (item) => item.classList.contains("day");
const bubbles = () => [...log().querySelectorAll(":scope > .bubble")];

let known = new Set(); // what was on the page when the reader was last at its end
let saved = null; // the page as it was before a fresh one took its place

function isAtEnd() {
  const end = document.getElementById("end").getBoundingClientRect().bottom;
  return end <= box().getBoundingClientRect().bottom + SLACK_PX;
}

// The first thing in view, and where it stands: it shall stand there again.
function spot() {
  const { top } = box().getBoundingClientRect();
  for (const item of log().children) {
    const place = item.getBoundingClientRect();
    if (item.id && place.bottom > top) return { id: item.id, as: item.dataset.as, top: place.top };
  }
  return null;
}

function goBack(at) {
  if (!at) return;
  const found = document.getElementById(at.id) ?? bubbles().find((bubble) => bubble.dataset.as === at.as);
  if (found) box().scrollTop += found.getBoundingClientRect().top - at.top;
}

// `later` begins with the day that `earlier` ends with: once is enough.
function withoutRepeatedDay(earlier, later) {
  const last = earlier.findLast(isDay);
  const isRepeated = last && later.length && isDay(later[0]) && later[0].dataset.day === last.dataset.day;
  return isRepeated ? later.slice(1) : later;
}

// -- pages, in place ----

async function pageAt(url) {
  const response = await fetch(url, { headers: { "HX-Request": "true" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!response.ok || !page.getElementById("said")) throw new Error(`status ${response.status}`);
  return page;
}

async function add(link) {
  const which = link.dataset.more;
  const url = link.href;
  link.setAttribute("aria-busy", "true");
  let page;
  try {
    page = await pageAt(url);
  } catch {
    location.assign(url); // signed out, or away: the browser shows what it is
    return;
  }
  const at = spot();
  const here = [...log().children];
  const there = [...page.getElementById("said").children].filter((item) => !item.id || !document.getElementById(item.id));
  const place = more(which);
  const next = page.querySelector(`[data-more="${which}"]`)?.closest("p");
  if (which === "earlier") log().replaceChildren(...there, ...withoutRepeatedDay(there, here));
  else log().append(...withoutRepeatedDay(here, there));
  if (next) place.replaceWith(next);
  else place.remove();
  goBack(at);
  box().focus({ preventScroll: true });
}

// -- a fresh page in the place of the old one ----

function save() {
  saved = { part: document.getElementById("timeline"), items: [...log().children], at: spot(), isAtEnd: isAtEnd(), earlier: more("earlier"), later: more("later") };
}

function putLink(which, paragraph) {
  const now = more(which);
  if (now && paragraph) now.replaceWith(paragraph);
  else if (paragraph) log()[which === "earlier" ? "before" : "after"](paragraph);
  else now?.remove();
}

function merge() {
  const old = saved;
  saved = null;
  const fresh = [...log().children];
  const ids = new Set(fresh.map((item) => item.id).filter(Boolean));
  const first = old.items.findIndex((item) => ids.has(item.id));
  const last = old.items.findLastIndex((item) => ids.has(item.id));
  const isNewest = !more("later");
  let isCut = false;
  if (first < 0 && old.items.some((item) => item.id) && !old.isAtEnd) {
    isCut = true; // so much is new that the pages do not touch: the reader stays with the old one
    log().replaceChildren(...old.items);
    putLink("earlier", old.earlier);
  } else if (first >= 0) {
    const before = old.items.slice(0, first);
    const after = isNewest ? [] : old.items.slice(last + 1);
    if (before.some((item) => item.id)) {
      log().replaceChildren(...before, ...withoutRepeatedDay(before, fresh));
      putLink("earlier", old.earlier);
    }
    if (after.length) {
      log().append(...withoutRepeatedDay([...log().children], after));
      putLink("later", old.later);
    }
  }
  if (old.isAtEnd && isNewest) box().scrollTop = box().scrollHeight;
  else goBack(old.at);
  count(isNewest, isCut);
}

function count(isNewest, isCut) {
  if (!isNewest) return; // the server counts
  if (isAtEnd()) {
    known = new Set(bubbles().map((bubble) => bubble.dataset.as));
    pill().hidden = true;
    return;
  }
  const fresh = bubbles().filter((bubble) => !known.has(bubble.dataset.as)).length;
  pill().hidden = !fresh && !isCut;
  pill().querySelector("[data-pill]").textContent = isCut ? "Many new" : `${fresh} new`;
  pill().toggleAttribute("data-is-cut", isCut);
}

export function startTimeline() {
  if (!log()) return;
  known = new Set(bubbles().map((bubble) => bubble.dataset.as));
  document.addEventListener("htmx:beforeSwap", (event) => event.detail.target?.id === "timeline" && save());
  document.addEventListener("htmx:afterSwap", () => {
    if (saved && log() && saved.part !== document.getElementById("timeline")) merge();
  });
  document.addEventListener("scroll", (event) => {
    if (event.target === box() && !pill().hidden && !more("later") && !pill().hasAttribute("data-is-cut")) count(true, false);
  }, { capture: true, passive: true });
  document.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = event.target.closest?.("#timeline [data-more]");
    if (link) {
      event.preventDefault();
      if (!link.hasAttribute("aria-busy")) add(link);
    } else if (event.target.closest?.("#pill") && !more("later")) {
      event.preventDefault();
      if (pill().hasAttribute("data-is-cut")) location.reload();
      else box().scrollTo({ top: box().scrollHeight, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    }
  });
}

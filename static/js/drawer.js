// A row's page beside its list. The address is the row's own: back closes it, a reload shows it as a page.
import { failed, load } from "./parts.js";

let opener = null;

const drawer = () => document.getElementById("drawer");
const content = () => document.getElementById("drawer-content");

async function show(url) {
  const box = drawer();
  box.hidden = false;
  document.body.classList.add("has-drawer");
  document.getElementById("drawer-page").href = url;
  const place = content();
  if (!place.childElementCount) place.replaceChildren(Object.assign(document.createElement("p"), { className: "loading", textContent: "Loading…" }));
  const isShown = await load(url, place);
  if (!isShown) place.replaceChildren(failed(url));
  mark(url);
  place.scrollTop = 0;
  (place.querySelector("h1, [data-again]") ?? place).focus({ preventScroll: true });
}

function mark(url) {
  const { pathname } = new URL(url, location.href);
  for (const row of document.querySelectorAll(".row.is-open")) row.classList.remove("is-open");
  for (const link of document.querySelectorAll("a[data-drawer]")) {
    if (new URL(link.href).pathname === pathname) link.closest(".row")?.classList.add("is-open");
  }
}

function hide() {
  drawer().hidden = true;
  content().replaceChildren();
  document.body.classList.remove("has-drawer");
  for (const row of document.querySelectorAll(".row.is-open")) row.classList.remove("is-open");
  const back = opener && document.getElementById(opener)?.querySelector(".row-link");
  back?.focus({ preventScroll: true });
}

export const isOpen = () => Boolean(drawer() && !drawer().hidden);

export function close() {
  if (isOpen()) history.go(-(history.state?.depth ?? 1));
}

const isPlain = (event) => event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);

export function startDrawer() {
  document.addEventListener("click", (event) => {
    const again = event.target.closest("[data-again]");
    if (again && isOpen() && drawer().contains(again)) {
      event.preventDefault();
      show(again.getAttribute("href"));
      return;
    }
    if (!isPlain(event)) return;
    const link = event.target.closest("a[data-drawer], a[data-part]");
    if (!link || !drawer() || (link.matches("[data-part]") && !drawer().contains(link))) return;
    event.preventDefault();
    const url = link.getAttribute("href");
    opener = link.closest(".row")?.id ?? opener;
    const depth = (isOpen() ? history.state?.depth ?? 0 : 0) + 1;
    history.pushState({ drawer: url, depth }, "", url);
    show(url);
  });
  if (!drawer()) return;
  document.getElementById("drawer-close").addEventListener("click", close);
  window.addEventListener("popstate", (event) => {
    if (event.state?.drawer) show(event.state.drawer);
    else if (isOpen()) hide();
  });
  document.addEventListener("pw:fresh", () => isOpen() && mark(location.href));
}

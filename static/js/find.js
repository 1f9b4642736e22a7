// The palette: find a page, a person, a bot, a message from anywhere. The server finds; here are the keys of a combobox
// (WAI-ARIA: list autocomplete, focus stays in the field). Without script the same button leads to a page.

const palette = () => document.getElementById("find");
const field = () => document.getElementById("find-text");
const list = () => document.getElementById("find-found");
const options = () => [...list().querySelectorAll("[role=option]")];

let goesWhenFound = false; // Enter came before what it is about

const shownFor = () => list().querySelector("[data-found]")?.dataset.found;
const isUpToDate = () => shownFor() === field().value.trim().replace(/\s+/g, " ");
const active = () => document.getElementById(field().getAttribute("aria-activedescendant") ?? "");

function activate(option) {
  for (const other of options()) other.setAttribute("aria-selected", String(other === option));
  field().setAttribute("aria-expanded", String(Boolean(option)));
  if (!option) return field().removeAttribute("aria-activedescendant");
  field().setAttribute("aria-activedescendant", option.id);
  option.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const all = options();
  if (all.length) activate(all[(all.indexOf(active()) + step + all.length) % all.length]);
}

function go() {
  if (isUpToDate()) active()?.click();
  else {
    goesWhenFound = true;
    htmx.trigger(field(), "pw:find");
  }
}

function open() {
  goesWhenFound = false;
  palette().showModal();
  field().select();
  if (!isUpToDate() || !options().length) htmx.trigger(field(), "pw:find");
}

const KEYS = { ArrowDown: () => move(1), ArrowUp: () => move(-1), Enter: go };

export function startFind() {
  if (!palette()) return;
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-find]") && !(event.metaKey || event.ctrlKey || event.shiftKey)) {
      event.preventDefault();
      open();
    } else if (event.target === palette() || event.target.closest("[data-find-close], #find-found a")) palette().close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    event.preventDefault();
    if (palette().open) palette().close();
    else if (!document.querySelector("dialog[open]")) open();
  });
  field().addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  list().addEventListener("pointermove", (event) => {
    const option = event.target.closest("[role=option]");
    if (option && option !== active()) activate(option);
  });
  list().addEventListener("htmx:afterSwap", () => {
    activate(options()[0]);
    const count = list().querySelector("[data-count]")?.dataset.count ?? "0";
    document.getElementById("find-status").textContent = `${count} found`;
    if (goesWhenFound && isUpToDate()) active()?.click();
  });
  for (const kind of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
    field().addEventListener(kind, () => {
      goesWhenFound = false;
      list().replaceChildren();
      activate(null);
      document.getElementById("find-status").textContent = "The server did not answer as it should. Type again, or press Enter to try again.";
    });
  }
}

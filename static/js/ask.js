// Questions before an act, in a dialog. The question is the server's page; so is what it says about a click too late.
import { failed, load } from "./parts.js";
import { refreshAll } from "./live.js";

const dialog = () => document.getElementById("question");

async function ask(url) {
  const box = dialog();
  const content = document.getElementById("question-content");
  content.replaceChildren(Object.assign(document.createElement("p"), { className: "loading", textContent: "Loading…" }));
  if (!box.open) box.showModal();
  if (!(await load(url, content))) content.replaceChildren(failed(url));
  const first = content.querySelector("[autofocus], input:not([type=hidden]), textarea, select, a");
  first?.focus();
}

function addressOf(button) {
  const { form } = button;
  const url = new URL(button.getAttribute("formaction") ?? form.getAttribute("action"), location.href);
  for (const [name, value] of new FormData(form)) url.searchParams.append(name, value);
  return url.pathname + url.search;
}

export function startAsking() {
  document.addEventListener("click", (event) => {
    const act = event.target.closest("[data-ask]");
    if (act && !(event.metaKey || event.ctrlKey || event.shiftKey)) {
      event.preventDefault();
      ask(act.tagName === "A" ? act.getAttribute("href") : addressOf(act));
      return;
    }
    const box = dialog();
    if (!box?.contains(event.target)) return;
    const again = event.target.closest("[data-again]");
    if (again) {
      event.preventDefault();
      ask(again.getAttribute("href"));
    } else if (event.target.closest("[data-cancel]")) {
      event.preventDefault();
      box.close();
    }
  });
  document.addEventListener("pw:done", () => {
    dialog()?.close();
    document.dispatchEvent(new CustomEvent("pw:unselect"));
    refreshAll();
  });
  for (const kind of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(kind, (event) => {
      const form = event.target.closest?.("#question form");
      if (!form) return;
      const note = Object.assign(document.createElement("p"), { className: "note tone-bad" });
      note.setAttribute("role", "alert");
      note.textContent = "The server did not answer as it should. Nothing may have been done; look before you try again.";
      form.querySelector(".note")?.remove();
      form.querySelector("h1")?.after(note);
    });
  }
  // A question that was answered with "too late" changes what the page behind it should show.
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.xhr?.status === 409 && dialog()?.contains(event.detail.elt)) refreshAll();
  });
}

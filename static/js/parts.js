// Parts of a page that the server renders: fetched by htmx, put in place whole. A part knows its own address.

export const failed = (url) => {
  const box = document.createElement("div");
  box.className = "nothing-here failed";
  box.setAttribute("role", "alert");
  const text = document.createElement("p");
  text.textContent = "This could not be loaded.";
  const again = document.createElement("a");
  again.className = "button";
  again.href = url;
  again.dataset.again = "";
  again.textContent = "Try again";
  box.append(text, again);
  return box;
};

// Load `url` into `target` ("innerHTML") or in its place ("outerHTML"); true when the server gave something to show.
export async function load(url, target, swap = "innerHTML") {
  let isShown = false;
  const note = () => { isShown = true; };
  document.body.addEventListener("htmx:afterSwap", note, { once: true });
  target.setAttribute("aria-busy", "true");
  try {
    await htmx.ajax("GET", url, { target, swap, source: target });
  } catch {
    isShown = false;
  } finally {
    target.removeAttribute("aria-busy");
    document.body.removeEventListener("htmx:afterSwap", note);
  }
  return isShown;
}

// Where the reader is in a part, so that it can be found again in the fresh one.
function place(part) {
  const at = document.activeElement;
  if (!part.contains(at)) return null;
  const row = at.closest(".row");
  if (row) return { row: row.id, selector: at.matches(".row-link") ? ".row-link" : "input" };
  return at.id ? { id: at.id } : { href: at.getAttribute("href") };
}

function goBack(spot) {
  if (!spot) return;
  const found = spot.row
    ? document.getElementById(spot.row)?.querySelector(spot.selector)
    : spot.id ? document.getElementById(spot.id) : spot.href && document.querySelector(`.part a[href="${CSS.escape(spot.href)}"]`);
  found?.focus({ preventScroll: true });
}

export async function refresh(part) {
  const { id } = part;
  const url = part.dataset.refresh;
  const spot = place(part);
  const open = [...part.querySelectorAll("details")].map((details) => details.open);
  const current = part.querySelector(".row.is-current")?.id;
  const isShown = await load(url, part, "outerHTML");
  const fresh = document.getElementById(id);
  if (!isShown) {
    fresh?.dispatchEvent(new CustomEvent("pw:stale", { bubbles: true }));
    return false;
  }
  [...(fresh?.querySelectorAll("details") ?? [])].forEach((details, index) => { details.open = open[index] ?? details.open; });
  if (current) document.getElementById(current)?.classList.add("is-current");
  goBack(spot);
  document.dispatchEvent(new CustomEvent("pw:fresh", { detail: { id } }));
  return true;
}

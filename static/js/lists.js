// Rows: move with j and k, select with x, and say how many are selected.

const rows = () => [...document.querySelectorAll(".rows > .row")].filter((row) => row.checkVisibility());
const selected = () => [...document.querySelectorAll("[data-select] .row-check input:checked")];

export const selectedCount = () => selected().length;

export const currentRow = () => document.activeElement?.closest(".row") ?? document.querySelector(".row.is-current");

export function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(currentRow());
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)];
  for (const row of all) row.classList.toggle("is-current", row === next);
  next.querySelector(".row-link")?.focus();
  next.scrollIntoView({ block: "nearest" });
}

export function toggle() {
  const box = currentRow()?.querySelector(".row-check input");
  if (box) box.click();
}

export function unselect() {
  for (const box of selected()) box.checked = false;
  show();
}

function show() {
  const count = selectedCount();
  for (const words of document.querySelectorAll("[data-selected]")) {
    words.dataset.idle ??= words.textContent;
    words.textContent = count ? `${count} selected` : words.dataset.idle;
  }
  for (const bar of document.querySelectorAll(".bulk")) bar.classList.toggle("is-active", count > 0);
  for (const button of document.querySelectorAll(".bulk [data-ask]")) button.disabled = count === 0;
  for (const button of document.querySelectorAll("[data-clear]")) button.hidden = count === 0;
  for (const button of document.querySelectorAll("[data-select-page]")) button.hidden = count === 0;
  document.dispatchEvent(new CustomEvent("pw:selected", { detail: { count } }));
}

export function startLists() {
  let last = null; // for a range with Shift
  document.addEventListener("click", (event) => {
    const box = event.target.closest(".row-check input");
    if (box) {
      const boxes = [...document.querySelectorAll(".row-check input")];
      if (event.shiftKey && last && boxes.includes(last)) {
        const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
        for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
      }
      last = box;
      show();
    }
    if (event.target.closest("[data-clear]")) unselect();
    if (event.target.closest("[data-select-page]")) {
      for (const each of document.querySelectorAll("[data-select] .row-check input")) each.checked = true;
      show();
    }
  });
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    for (const other of document.querySelectorAll(".row.is-current")) other.classList.toggle("is-current", other === row);
    row.classList.add("is-current");
  });
  document.addEventListener("pw:unselect", unselect);
  document.addEventListener("pw:fresh", show);
  show();
}

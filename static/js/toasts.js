// Short words about what was done. They stay until read: no text leaves by itself while the pointer or focus is on it.
const LASTS_MS = 8000;

export function toast(text, { tone = "good", undo = "" } = {}) {
  const box = document.createElement("p");
  box.className = `toast note tone-${tone}`;
  const words = document.createElement("span");
  words.textContent = text;
  box.append(words);
  if (undo) {
    const link = document.createElement("a");
    link.href = undo;
    link.dataset.ask = "";
    link.textContent = "Undo";
    box.append(link);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "toast-close";
  close.setAttribute("aria-label", "Dismiss");
  close.textContent = "×";
  close.addEventListener("click", () => box.remove());
  box.append(close);
  document.getElementById("toasts")?.append(box);
  const leave = () => (box.matches(":hover, :focus-within") ? setTimeout(leave, LASTS_MS) : box.remove());
  setTimeout(leave, LASTS_MS);
}

export function startToasts() {
  document.addEventListener("pw:done", (event) => toast(event.detail.text, { undo: event.detail.undo }));
}

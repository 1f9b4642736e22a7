// Who else has this conversation open, and who is typing an answer: signs over the live websocket, kept nowhere. A sign
// that is not repeated is forgotten, here as on the other pages.
import { isListening, tell } from "./live.js";

const READING_MS = 5000; // between two signs of a page that is looked at
const TYPING_MS = 2000; // between two signs while somebody types
const FORGET_MS = { reading: 12000, typing: 6000 };

const seen = new Map(); // name → { reading: when, typing: when }

function say() {
  const place = document.getElementById("presence");
  const now = Date.now();
  const words = [];
  for (const [name, at] of seen) {
    if (now - at.typing < FORGET_MS.typing) words.push(`${name} is typing an answer`);
    else if (now - at.reading < FORGET_MS.reading) words.push(`${name} is reading`);
    else seen.delete(name);
  }
  const text = words.length ? `${words.join(", ")}.` : "";
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
  place.classList.toggle("is-typing", text.includes("typing"));
}

const sign = (doing) => !document.hidden && isListening() && tell({ type: "sign", doing });

export function startPresence() {
  const desk = document.getElementById("desk");
  if (!desk || !document.getElementById("main").dataset.talk) return;
  document.addEventListener("pw:live", () => sign("reading"));
  setInterval(() => sign("reading"), READING_MS);
  setInterval(say, 1000);
  let lastTyped = 0;
  desk.addEventListener("input", (event) => {
    if (event.target.name !== "text" || Date.now() - lastTyped < TYPING_MS) return;
    lastTyped = Date.now();
    sign("typing");
  });
  document.addEventListener("pw:heard", ({ detail: event }) => {
    if (event.type !== "colleague") return;
    if (event.doing === "gone") seen.delete(event.who);
    else {
      if (!seen.has(event.who)) sign("reading"); // so that somebody who has just come knows of this page, too
      const at = seen.get(event.who) ?? { reading: 0, typing: 0 };
      at.reading = Date.now();
      if (event.doing === "typing") at.typing = at.reading;
      seen.set(event.who, at);
    }
    say();
  });
}

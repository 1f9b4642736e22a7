// What the pages do beyond links and forms. Every page works without it; each module says what it adds.
import { startAsking } from "./ask.js";
import { startDrawer } from "./drawer.js";
import { startFind } from "./find.js";
import { startKeys } from "./keys.js";
import { startLists } from "./lists.js";
import { startLive } from "./live.js";
import { startPresence } from "./presence.js";
import { startTimeline } from "./timeline.js";
import { startToasts } from "./toasts.js";

startToasts();
startDrawer();
startLists();
startAsking();
startTimeline();
startPresence();
startLive();
startKeys();
startFind();
for (const here of document.querySelectorAll(".nav [aria-current], .views [aria-current], .tabs [aria-current]")) {
  here.scrollIntoView({ block: "nearest", inline: "center" });
}

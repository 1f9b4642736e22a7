// What the pages do beyond links and forms. Every page works without it; each module says what it adds.
import { startAsking } from "./ask.js";
import { startDrawer } from "./drawer.js";
import { startKeys } from "./keys.js";
import { startLists } from "./lists.js";
import { startLive } from "./live.js";
import { startToasts } from "./toasts.js";

startToasts();
startDrawer();
startLists();
startAsking();
startLive();
startKeys();
document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

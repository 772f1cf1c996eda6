// The frame around the pages: routes, navigation, the state of the connection, the theme.

import { post, toLogin } from "./api.js";
import { add, button, fill, h, icon, svg, write } from "./dom.js";
import { fail } from "./notices.js";
import { cameraPage } from "./pages/camera.js";
import { editPage } from "./pages/edit.js";
import { eventsPage } from "./pages/events.js";
import { filesPage } from "./pages/files.js";
import { jobPage } from "./pages/job.js";
import { referencePage } from "./pages/reference.js";
import { wallPage } from "./pages/wall.js";
import { store, troubled } from "./store.js";
import { bytes, plural } from "./words.js";

// Each page fills `main` and returns a function that is called when it is left.
const ROUTES = [
  [/^\/?$/, wallPage, "cameras"],
  [/^\/add$/, editPage, "cameras"],
  [/^\/camera\/([^/]+)$/, cameraPage, "cameras"],
  [/^\/camera\/([^/]+)\/edit$/, editPage, "cameras"],
  [/^\/files$/, filesPage, "files"],
  [/^\/files\/([^/]+)$/, jobPage, "files"],
  [/^\/events$/, eventsPage, "events"],
  [/^\/api$/, referencePage, "api"],
];
const NAVIGATION = [
  ["cameras", "#/", "cameras", "Cameras"],
  ["files", "#/files", "files", "Files"],
  ["events", "#/events", "events", "Events"],
  ["api", "#/api", "code", "API"],
];

const main = document.getElementById("main");
let leave = () => {};
let shownPath = null;

function setTitle(title) {
  document.title = `${title} · gpen-stream`;
}

function show() {
  const whole = location.hash.replace(/^#/, "") || "/";
  if (whole === shownPath) return;
  const first = shownPath === null;
  shownPath = whole;
  const [path, query] = whole.split("?");
  leave();
  leave = () => {};
  fill(main);
  for (const [pattern, page, section] of ROUTES) {
    const match = path.match(pattern);
    if (!match) continue;
    mark(section);
    const holder = h("div", { class: "page" });
    main.append(holder);
    const name = match[1] && decodeURIComponent(match[1]);
    leave = page(holder, { setTitle, name, query: new URLSearchParams(query) }) ?? (() => {});
    if (!first) {
      scrollTo(0, 0);
      const heading = holder.querySelector("h1");
      heading?.setAttribute("tabindex", "-1");
      heading?.focus({ preventScroll: true });
    }
    return;
  }
  mark("");
  setTitle("Not found");
  main.append(
    h(
      "div",
      { class: "empty" },
      icon("search"),
      h("h1", {}, "There is no such page"),
      h("a", { class: "button", href: "#/" }, "To the cameras"),
    ),
  );
}

function mark(section) {
  for (const link of document.querySelectorAll(".nav a")) {
    if (link.dataset.section === section) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function buildSide() {
  document.querySelector(".brand").prepend(
    svg(
      "svg",
      { viewBox: "0 0 24 24", "aria-hidden": "true" },
      svg("path", { class: "left", d: "M11 2.5A9.5 9.5 0 0 0 11 21.5z" }),
      svg("path", { class: "right", d: "M13 2.5A9.5 9.5 0 0 1 13 21.5z" }),
    ),
  );
  add(
    document.querySelector(".nav"),
    NAVIGATION.map(([section, href, drawing, text]) =>
      h("a", { href, data: { section } }, icon(drawing), h("span", {}, text)),
    ),
  );
  const toggle = () => document.dispatchEvent(new CustomEvent("toggletheme"));
  const theme = button("Dark or light", { icon: "sun", kind: "plain", text: false, onclick: toggle });
  const drawTheme = () => {
    const light = document.documentElement.dataset.theme === "light";
    theme.replaceChildren(icon(light ? "moon" : "sun"));
    theme.setAttribute("aria-label", light ? "Change to dark" : "Change to light");
    theme.title = theme.getAttribute("aria-label");
  };
  document.addEventListener("themechange", drawTheme);
  drawTheme();
  const logOut = button("Log out", {
    icon: "leave",
    kind: "plain",
    text: false,
    onclick: () => post("/api/logout").then(toLogin, fail),
  });
  logOut.hidden = true;
  document.querySelector(".side-tools").append(theme, logOut);
  store.addEventListener("server", () => {
    logOut.hidden = !store.server?.locked;
  });
}

function showLink() {
  const holder = document.querySelector(".link-state");
  const [tone, text] = {
    online: ["tone-good", "Connected"],
    offline: ["tone-bad", "Offline"],
    connecting: ["tone-warn", "Connecting"],
  }[store.link];
  fill(holder, h("span", { class: `dot ${tone}` }), text);
  document.documentElement.dataset.link = store.link;
  const banner = document.getElementById("offline");
  banner.hidden = store.link !== "offline";
  if (!banner.hidden && !banner.firstChild) {
    fill(banner, icon("broken"), "The server cannot be reached. The pages show its last known state and keep trying.");
  }
}

function showServer() {
  const server = store.server;
  if (!server) return;
  const free = server.disk?.free_bytes ?? server.disk?.free;
  const lines = [
    server.version && `gpen-stream ${server.version}`,
    server.cores && plural(server.cores, "core") + (server.engine ? `, ${server.engine}` : ""),
    Number.isFinite(free) && `${bytes(free)} free`,
  ].filter(Boolean);
  const facts = document.querySelector(".server .facts");
  write(facts, "");
  fill(facts, lines.map((line) => h("div", { class: "wrap" }, line)));
}

// The fragment of the address is the route, so the skip link has to move the focus itself.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("page").focus();
});
function showTrouble() {
  const link = document.querySelector('.nav a[data-section="cameras"]');
  const count = [...store.cameras.values()].filter(troubled).length;
  const badge = link.querySelector(".count") ?? link.appendChild(h("span", { class: "count" }));
  badge.hidden = count === 0;
  write(badge, String(count));
  badge.setAttribute("aria-label", `${count} in trouble`);
  badge.title = badge.getAttribute("aria-label");
}

buildSide();
showLink();
store.addEventListener("link", showLink);
store.addEventListener("server", showServer);
store.addEventListener("cameras", showTrouble);
addEventListener("hashchange", show);
show();
store.start();

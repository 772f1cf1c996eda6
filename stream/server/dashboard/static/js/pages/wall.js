// The wall: every camera with its live picture and its state in words.

import { button, empty, fill, h, icon, write } from "../dom.js";
import { Preview } from "../preview.js";
import { shownState, store, troubled } from "../store.js";
import { trouble } from "../trouble.js";
import { capital, fps, milliseconds, number, plural } from "../words.js";

const SIZES = [
  ["small", "Small"],
  ["middle", "Medium"],
  ["large", "Large"],
];
const GROUPS = [
  ["all", "All", () => true],
  ["live", "Live", (one) => one.enabled && one.state === "live"],
  ["trouble", "Trouble", troubled],
  ["off", "Off", (one) => one.state === "stopped" || one.state === "paused"],
];
const QUIET_TONES = { idle: "" };
const NODE_TONES = { up: "good", silent: "warn", unusable: "bad" };

/** One machine of a cluster: its state, its cameras and what they need of its cores. */
function nodeItem(node) {
  const load = `${number(node.used, 1)} of ${plural(node.cores, "core")}`;
  return h(
    "li",
    { class: "node", data: { node: node.name } },
    h("span", { class: `pill ${NODE_TONES[node.state]}` }, h("span", { class: "dot" }), capital(node.state)),
    h("strong", { class: "clip" }, node.name),
    h("span", { class: "soft small" }, `${plural(node.cameras.length, "camera")} · ${load}`),
    node.state !== "up" && h("span", { class: "small wrap" }, node.words),
  );
}

/** Draws a picture into a canvas of its own size. */
export function drawWhole(canvas, picture) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, 0);
}

class Tile {
  constructor(one) {
    this.name = one.name;
    this.pictured = false;
    this.canvas = h("canvas", { width: 16, height: 9, "aria-hidden": "true" });
    this.veil = h("div", { class: "veil" });
    this.pill = h("span", { class: "pill" });
    this.chip = h("span", { class: "chip", hidden: true });
    this.values = Object.fromEntries(["fps", "delay", "faces", "dropped"].map((key) => [key, h("dd")]));
    const path = `#/camera/${encodeURIComponent(one.name)}`;
    this.element = h(
      "li",
      { class: "tile", data: { camera: one.name } },
      h("div", { class: "tile-picture" }, this.canvas, this.veil, this.chip),
      h(
        "div",
        { class: "tile-foot" },
        h(
          "div",
          { class: "tile-name" },
          h("h2", { class: "clip" }, h("a", { href: path, title: one.name }, one.name)),
          this.pill,
        ),
        h(
          "dl",
          { class: "tile-values" },
          [
            ["fps", "fps"],
            ["delay", "delay"],
            ["faces", "faces"],
            ["dropped", "dropped"],
          ].map(([key, label]) => h("div", {}, h("dt", {}, label), this.values[key])),
        ),
      ),
    );
    this.update(one);
  }

  update(one) {
    const before = this.one && shownState(this.one);
    this.one = one;
    const state = shownState(one);
    this.pill.className = `pill ${QUIET_TONES[state] ?? one.tone}`;
    fill(this.pill, h("span", { class: "dot" }), capital(state));
    write(this.values.fps, one.state === "live" ? fps(one.fps_out) : "–");
    write(this.values.delay, one.state === "live" ? milliseconds(one.delay?.median_ms) : "–");
    write(this.values.faces, one.state === "live" ? number(one.faces) : "–");
    write(this.values.dropped, number(one.dropped));
    const chip = one.state !== "live" ? "" : one.level > 0 ? one.level_words : "";
    this.chip.hidden = !chip;
    write(this.chip, chip ?? "");
    this.cover();
    this.preview?.pause(this.isOff);
    return before !== undefined && before !== state;
  }

  /** Whether the camera is off, so that no pictures are requested. */
  get isOff() {
    return this.one.state === "stopped" || this.one.state === "paused";
  }

  cover() {
    const cover = trouble(this.one, this.pictured);
    this.veil.hidden = !cover;
    this.element.classList.toggle("stale", Boolean(cover) && this.pictured);
    if (!cover) return;
    const key = cover.join("|");
    if (this.covered === key) return;
    this.covered = key;
    fill(this.veil, icon(cover[0]), h("strong", {}, cover[1]), cover[2] && h("span", {}, cover[2]));
  }

  /** Requests pictures while the tile is visible. */
  see(visible) {
    if (!visible) {
      this.preview?.stop();
      this.preview = null;
    } else if (!this.preview) {
      const draw = (picture) => {
        drawWhole(this.canvas, picture);
        if (!this.pictured) {
          this.pictured = true;
          this.cover();
        }
      };
      this.preview = new Preview(this.name, "restored", draw, { paused: this.isOff });
    }
  }
}

function stored(key, fallback) {
  try {
    return localStorage.getItem(key) ?? fallback;
  } catch {
    return fallback;
  }
}

export function wallPage(page, { setTitle }) {
  setTitle("Cameras");
  const tiles = new Map();
  let group = "all";
  let query = "";
  let size = stored("wall", "middle");
  const grid = h("ul", { class: "wall", "aria-label": "Cameras" });
  const summary = h("p", { class: "soft small" });
  const news = h("div", { class: "unseen", "aria-live": "polite" });
  const holder = h("div");
  const nodes = h("ul", { class: "nodes", "aria-label": "Nodes", hidden: true });
  const groups = h("div", { class: "group", role: "group", "aria-label": "Which cameras" });
  const sizes = h("div", { class: "group wall-size", role: "group", "aria-label": "Size of the pictures" });
  const search = h("input", {
    class: "input wall-search",
    type: "search",
    placeholder: "Find a camera",
    "aria-label": "Find a camera",
    oninput: () => {
      query = search.value.trim().toLowerCase();
      arrange();
    },
  });
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) tiles.get(entry.target.dataset.camera)?.see(entry.isIntersecting);
    },
    { rootMargin: "120px" },
  );

  for (const [key, label] of SIZES) {
    const choose = () => {
      size = key;
      try {
        localStorage.setItem("wall", key);
      } catch {
        // Without storage the choice holds for this page only.
      }
      arrange();
    };
    sizes.append(h("button", { type: "button", data: { key }, onclick: choose }, label));
  }
  for (const [key, label] of GROUPS) {
    const choose = () => {
      group = key;
      arrange();
    };
    groups.append(
      h("button", { type: "button", data: { key }, onclick: choose }, label, h("span", { class: "faint" })),
    );
  }
  const bar = h("div", { class: "wall-bar" }, groups, search, sizes);
  fill(
    page,
    h(
      "div",
      { class: "head" },
      h("div", { class: "title" }, h("h1", {}, "Cameras"), summary),
      h(
        "div",
        { class: "tools" },
        h("a", { class: "button primary", href: "#/add" }, icon("plus"), "Add camera"),
      ),
    ),
    nodes,
    bar,
    holder,
    news,
  );

  function arrange() {
    const all = [...store.cameras.values()];
    for (const each of sizes.children) each.setAttribute("aria-pressed", String(each.dataset.key === size));
    for (const [n, [key, , isMember]] of GROUPS.entries()) {
      const each = groups.children[n];
      const count = all.filter(isMember).length;
      each.setAttribute("aria-pressed", String(key === group));
      write(each.lastChild, number(count));
      each.hidden = count === 0 && key !== "all" && key !== group;
    }
    const isMember = GROUPS.find(([key]) => key === group)[2];
    const shown = all.filter((one) => isMember(one) && one.name.toLowerCase().includes(query));
    grid.dataset.size = size;
    for (const [name, tile] of tiles) {
      if (shown.some((one) => one.name === name)) continue;
      observer.unobserve(tile.element);
      tile.see(false);
      tile.element.remove();
      if (!store.cameras.has(name)) tiles.delete(name);
    }
    shown.forEach((one, n) => {
      let tile = tiles.get(one.name);
      if (!tile) tiles.set(one.name, (tile = new Tile(one)));
      if (grid.children[n] !== tile.element) {
        grid.insertBefore(tile.element, grid.children[n] ?? null);
        observer.observe(tile.element);
      }
    });
    bar.hidden = all.length === 0;
    if (shown.length > 0) {
      if (holder.firstChild !== grid) fill(holder, grid);
    } else fill(holder, nothing(all.length));
    summarise(all);
  }

  function nothing(total) {
    if (!store.loaded && store.error) {
      return empty("broken", "The cameras cannot be shown", store.error.message);
    }
    if (!store.loaded) {
      return h(
        "ul",
        { class: "wall", data: { size }, "aria-label": "Loading" },
        Array.from({ length: 6 }, () => h("li", { class: "tile bone" }, h("div", { class: "tile-picture" }))),
      );
    }
    if (total > 0) {
      const back = () => {
        group = "all";
        query = search.value = "";
        arrange();
      };
      return empty("search", "No camera matches", null, button("Show all", { onclick: back }));
    }
    return empty(
      "cameras",
      "No camera yet",
      "Add the address of a camera, such as rtsp://, a webcam, or a file; or try the built-in test picture.",
      h("a", { class: "button primary", href: "#/add" }, icon("plus"), "Add camera"),
      h("a", { class: "button", href: "#/add?source=test:" }, "Try the test picture"),
    );
  }

  function summarise(all) {
    if (!store.loaded) return write(summary, "");
    const live = all.filter((one) => one.enabled && one.state === "live");
    const faces = live.reduce((sum, one) => sum + (one.faces || 0), 0);
    const parts = [`${number(live.length)} of ${plural(all.length, "camera")} live`];
    if (live.length > 0) parts.push(`${plural(faces, "face")} in the picture`);
    write(summary, all.length ? parts.join(" · ") : "");
  }

  function onnodes() {
    nodes.hidden = store.nodes.length === 0;
    fill(nodes, store.nodes.map(nodeItem));
  }

  function oncameras(event) {
    for (const name of event.detail ? [event.detail] : tiles.keys()) {
      const one = store.cameras.get(name);
      if (one && tiles.get(name)?.update(one)) write(news, `${name}: ${one.words}`);
    }
    arrange();
  }

  store.addEventListener("cameras", oncameras);
  store.addEventListener("nodes", onnodes);
  arrange();
  onnodes();
  return () => {
    store.removeEventListener("cameras", oncameras);
    store.removeEventListener("nodes", onnodes);
    observer.disconnect();
    for (const tile of tiles.values()) tile.see(false);
  };
}

// The live picture of one camera: original and restored on both sides of a divider.

import { Divider } from "./divider.js";
import { fill, h, icon } from "./dom.js";
import { Preview } from "./preview.js";
import { trouble } from "./trouble.js";
import { Zoom } from "./zoom.js";

const VIEWS = [
  ["compare", "Compare"],
  ["original", "Original"],
  ["restored", "Restored"],
];

export class Viewer {
  /** The part of the picture that is shown: left, top and size, as fractions. */
  #part = [0, 0, 1];
  #pair = document.createElement("canvas");
  #one = null;
  #view = "compare";
  #linked = true;

  constructor(name, enabled) {
    this.pictured = false;
    this.canvas = h("canvas", {
      width: 640,
      height: 360,
      role: "img",
      "aria-label": `Live picture of ${name}, original left of the divider, restored right of it`,
    });
    this.veil = h("div", { class: "veil" });
    this.tags = [
      h("span", { class: "tag left", "aria-hidden": "true" }, "Original"),
      h("span", { class: "tag right", "aria-hidden": "true" }, "Restored"),
    ];
    this.frame = h("div", { class: "frame" }, this.canvas, this.tags, this.veil);
    this.divider = new Divider(this.frame, () => this.#draw());
    this.element = h("div", { class: "viewer" }, this.frame);
    this.zoom = new Zoom(this.frame, (_factor, part) => {
      this.#part = part;
      this.#draw();
    });
    this.views = h(
      "div",
      { class: "group", role: "group", "aria-label": "What is shown" },
      VIEWS.map(([key, label]) =>
        h("button", { type: "button", data: { key }, onclick: () => this.show(key) }, label),
      ),
    );
    const onlink = (linked) => {
      this.#linked = linked;
      this.cover();
    };
    this.preview = new Preview(name, "pair", (picture) => this.#receive(picture), { paused: !enabled, onlink });
    this.show("compare");
  }

  show(view) {
    this.#view = view;
    for (const each of this.views.children) {
      each.setAttribute("aria-pressed", String(each.dataset.key === view));
    }
    this.divider.show(view === "compare");
    this.tags[0].hidden = view === "restored";
    this.tags[1].hidden = view === "original";
    this.#draw();
  }

  update(one) {
    this.#one = one;
    this.preview.pause(!one.enabled);
    this.cover();
  }

  /** Shows a text over the picture if it is missing or old. */
  cover() {
    const one = this.#one;
    let cover = one && trouble(one, this.pictured);
    if (one?.state === "live" && !this.#linked) cover = ["broken", "No picture", "The preview cannot be reached"];
    this.veil.hidden = !cover;
    this.frame.classList.toggle("stale", Boolean(cover) && this.pictured);
    const key = cover?.join("|");
    if (!cover || this.covered === key) return;
    this.covered = key;
    fill(this.veil, icon(cover[0]), h("strong", {}, cover[1]), cover[2] && h("span", {}, cover[2]));
  }

  stop() {
    this.preview.stop();
  }

  #receive(picture) {
    const width = picture.width;
    const height = Math.floor(picture.height / 2);
    if (this.#pair.width !== width || this.#pair.height !== picture.height) {
      this.#pair.width = this.canvas.width = width;
      this.#pair.height = picture.height;
      this.canvas.height = height;
      this.frame.style.aspectRatio = `${width} / ${height}`;
      this.frame.style.setProperty("--shape", String(width / height));
    }
    this.#pair.getContext("2d", { alpha: false }).drawImage(picture, 0, 0);
    const first = !this.pictured;
    this.pictured = true;
    this.#draw();
    if (first) this.cover();
  }

  #draw() {
    if (!this.pictured) return;
    const { width, height } = this.canvas;
    const at = { compare: this.divider.at, original: 1, restored: 0 }[this.#view];
    const split = Math.round(width * at);
    const context = this.canvas.getContext("2d", { alpha: false });
    const [left, top, size] = this.#part;
    const part = (from, to, shift) => {
      if (to <= from) return;
      const source = [left * width + from * size, shift + top * height, (to - from) * size, height * size];
      context.drawImage(this.#pair, ...source, from, 0, to - from, height);
    };
    part(0, split, 0);
    part(split, width, height);
  }
}

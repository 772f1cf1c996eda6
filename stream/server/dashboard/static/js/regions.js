// Regions on the picture. They are drawn by mouse or touch; keys move them and change their size.

import { button, fill, h, write } from "./dom.js";
import { percent } from "./words.js";

const KINDS = {
  include: ["Restore only here", "restored only inside"],
  exclude: ["Leave alone", "left alone inside"],
};
const LEAST = 0.02;
const STEP = 0.01;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Edits the regions of one camera; `save` gets {include, exclude} of [x, y, width, height], 0..1. */
export class Regions {
  #regions = [];
  #kind = "include";
  #editing = false;

  constructor(frame, save) {
    this.frame = frame;
    this.save = save;
    this.layer = h("div", { class: "regions" });
    this.list = h("div", { class: "region-list" });
    this.news = h("div", { class: "unseen", "aria-live": "polite" });
    frame.append(this.layer);
    this.kinds = h(
      "div",
      { class: "group", role: "group", "aria-label": "What the next region does" },
      Object.entries(KINDS).map(([kind, [label]]) =>
        h("button", { type: "button", data: { kind }, onclick: () => this.#choose(kind) }, label),
      ),
    );
    this.saveButton = button("Save regions", { kind: "primary slim", onclick: () => this.#save() });
    this.bar = h(
      "div",
      { class: "region-bar", hidden: true },
      h(
        "div",
        { class: "region-tools" },
        this.kinds,
        button("Add one", { icon: "plus", kind: "slim", onclick: () => this.#add() }),
        h("span", { class: "grow" }),
        button("Cancel", { kind: "slim plain", onclick: () => this.edit(false) }),
        this.saveButton,
      ),
      h(
        "p",
        { class: "small soft", id: "region-help" },
        "Drag on the picture to draw a region. The arrow keys move the region that has the focus, Shift and " +
          "the arrow keys change its size, and Delete removes it.",
      ),
      this.list,
      this.news,
    );
    this.layer.addEventListener("pointerdown", (event) => this.#down(event));
    this.#choose("include");
  }

  get editing() {
    return this.#editing;
  }

  /** Shows the camera's regions; ignored while they are being edited. */
  set(include = [], exclude = []) {
    const key = JSON.stringify([include, exclude]);
    if (this.#editing || this.known === key) return;
    this.known = key;
    this.saved = [
      ...include.map((box) => ({ kind: "include", box })),
      ...exclude.map((box) => ({ kind: "exclude", box })),
    ];
    this.#regions = structuredClone(this.saved);
    this.#draw();
  }

  edit(editing) {
    this.#editing = editing;
    if (!editing) this.#regions = structuredClone(this.saved ?? []);
    this.bar.hidden = !editing;
    this.layer.classList.toggle("editing", editing);
    this.#draw();
    this.onedit?.(editing);
  }

  #choose(kind) {
    this.#kind = kind;
    for (const each of this.kinds.children) {
      each.setAttribute("aria-pressed", String(each.dataset.kind === kind));
    }
  }

  #add() {
    this.#regions.push({ kind: this.#kind, box: [0.3, 0.3, 0.4, 0.4] });
    this.#draw();
    this.layer.lastChild.focus();
  }

  #remove(region) {
    this.#regions = this.#regions.filter((one) => one !== region);
    this.#draw();
    write(this.news, "Region removed");
    (this.layer.lastChild ?? this.saveButton).focus();
  }

  async #save() {
    const boxes = (kind) =>
      this.#regions
        .filter((one) => one.kind === kind)
        .map((one) => one.box.map((value) => Math.round(value * 10000) / 10000));
    const regions = { include: boxes("include"), exclude: boxes("exclude") };
    this.saveButton.disabled = true;
    try {
      if (await this.save(regions)) {
        this.saved = structuredClone(this.#regions);
        this.edit(false);
      }
    } finally {
      this.saveButton.disabled = false;
    }
  }

  #place(event) {
    const area = this.layer.getBoundingClientRect();
    return [
      clamp((event.clientX - area.left) / area.width, 0, 1),
      clamp((event.clientY - area.top) / area.height, 0, 1),
    ];
  }

  #down(event) {
    if (!this.#editing || event.button !== 0) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.#place(event);
    const pressed = event.target.closest(".region");
    let region = pressed && this.#regions[Number(pressed.dataset.index)];
    const start = region && [...region.box];
    const sizing = Boolean(event.target.closest(".region-corner"));
    if (pressed) pressed.focus();
    this.layer.setPointerCapture(event.pointerId);
    const onmove = (move) => {
      const [x, y] = this.#place(move);
      if (!region) {
        region = { kind: this.#kind, box: [from[0], from[1], 0, 0] };
        this.#regions.push(region);
      }
      if (!start) {
        const [left, right] = [from[0], x].sort((a, b) => a - b);
        const [top, bottom] = [from[1], y].sort((a, b) => a - b);
        region.box = [left, top, right - left, bottom - top];
      } else if (sizing) this.#size(region, start[2] + x - from[0], start[3] + y - from[1]);
      else this.#move(region, start[0] + x - from[0], start[1] + y - from[1]);
      this.#draw();
    };
    const onup = () => {
      this.layer.removeEventListener("pointermove", onmove);
      if (region && (region.box[2] < LEAST || region.box[3] < LEAST)) {
        this.#regions = this.#regions.filter((one) => one !== region);
        this.#draw();
      }
    };
    this.layer.addEventListener("pointermove", onmove);
    this.layer.addEventListener("pointerup", onup, { once: true });
    this.layer.addEventListener("pointercancel", onup, { once: true });
  }

  #move(region, x, y) {
    const [, , width, height] = region.box;
    region.box = [clamp(x, 0, 1 - width), clamp(y, 0, 1 - height), width, height];
  }

  #size(region, width, height) {
    const [x, y] = region.box;
    region.box = [x, y, clamp(width, LEAST, 1 - x), clamp(height, LEAST, 1 - y)];
  }

  #key(event, region, index) {
    if (!this.#editing) return;
    const [x, y, width, height] = region.box;
    const [dx, dy] =
      { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [];
    if (event.key === "Delete" || event.key === "Backspace") this.#remove(region);
    else if (dx === undefined) return;
    else {
      if (event.shiftKey) this.#size(region, width + dx, height + dy);
      else this.#move(region, x + dx, y + dy);
      this.#draw();
      this.layer.children[index].focus();
      write(this.news, this.#words(region, index));
    }
    event.preventDefault();
  }

  #words({ kind, box }, index) {
    const [x, y, width, height] = box.map(percent);
    return `Region ${index + 1}, ${KINDS[kind][1]}: from the left ${x}, from above ${y}, ${width} wide, ${height} high`;
  }

  #draw() {
    const focused = [...this.layer.children].indexOf(document.activeElement);
    fill(
      this.layer,
      this.#regions.map((region, index) => {
        const [x, y, width, height] = region.box;
        const label = this.#words(region, index);
        const box = h(
          "div",
          {
            class: `region ${region.kind}`,
            tabindex: this.#editing ? "0" : null,
            role: this.#editing ? "button" : "img",
            "aria-label": label,
            "aria-describedby": this.#editing ? "region-help" : null,
            data: { index },
            onkeydown: (event) => this.#key(event, region, index),
          },
          h("span", { class: "region-name", "aria-hidden": "true" }, KINDS[region.kind][0]),
          this.#editing && h("span", { class: "region-corner", "aria-hidden": "true" }),
        );
        box.style.left = `${x * 100}%`;
        box.style.top = `${y * 100}%`;
        box.style.width = `${width * 100}%`;
        box.style.height = `${height * 100}%`;
        return box;
      }),
    );
    if (focused >= 0) this.layer.children[Math.min(focused, this.layer.children.length - 1)]?.focus();
    fill(
      this.list,
      this.#regions.map((region, index) =>
        h(
          "span",
          { class: `region-item ${region.kind}` },
          `${index + 1}. ${KINDS[region.kind][0]}`,
          button(`Remove region ${index + 1}`, {
            icon: "close",
            kind: "plain slim",
            text: false,
            onclick: () => this.#remove(region),
          }),
        ),
      ),
    );
  }
}

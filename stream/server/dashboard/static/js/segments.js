// Recordings of one camera: played back here, or downloaded.

import { cameraPath, get } from "./api.js";
import { button, empty, fill, h, icon } from "./dom.js";
import { bytes, clock, day, duration } from "./words.js";

const FRESH_MS = 10000;
const FIRST_SHOWN = 8;

export class Segments {
  #all = null;
  #shown = FIRST_SHOWN;
  #drawn = "";

  constructor(name) {
    this.name = name;
    this.body = h("div");
    this.count = h("span", { class: "small faint" });
    this.element = h(
      "section",
      { class: "panel", "aria-labelledby": "segments-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "segments-title" }, "Recordings"), this.count),
      this.body,
    );
    this.load();
    this.timer = setInterval(() => this.load(), FRESH_MS);
  }

  stop() {
    clearInterval(this.timer);
  }

  async load() {
    if (document.hidden && this.#all) return;
    try {
      const answer = await get(`${cameraPath(this.name)}/segments`);
      this.#all = [...answer].sort((a, b) => (a.name < b.name ? 1 : -1));
      this.#draw();
    } catch (error) {
      if (!this.#all && error.name !== "AbortError") {
        fill(this.body, h("p", { class: "panel-note wrong" }, error.message));
      }
    }
  }

  #draw() {
    const key = JSON.stringify([this.#all.slice(0, this.#shown), this.#all.length, this.#shown]);
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.body.className = "";
    const total = this.#all.reduce((sum, one) => sum + (one.bytes || 0), 0);
    this.count.textContent = this.#all.length ? `${this.#all.length}, ${bytes(total)}` : "";
    if (this.#all.length === 0) {
      const nothing = empty(
        "folder",
        "Nothing recorded",
        "Add a folder as an output of the camera to record its picture.",
      );
      nothing.classList.add("slim");
      fill(this.body, nothing);
      return;
    }
    fill(
      this.body,
      h(
        "ul",
        { class: "rows" },
        this.#all.slice(0, this.#shown).map((one) => this.#row(one)),
      ),
      this.#all.length > this.#shown &&
        h(
          "div",
          { class: "more" },
          button(`Show ${Math.min(50, this.#all.length - this.#shown)} more`, {
            kind: "slim plain",
            onclick: () => {
              this.#shown += 50;
              this.#draw();
            },
          }),
        ),
    );
  }

  #row(one) {
    const path = `${cameraPath(this.name)}/segments/${encodeURIComponent(one.name)}`;
    const title = `${day(one.began_at)}, ${clock(one.began_at)}`;
    return h(
      "li",
      { class: "row" },
      button(`Play ${title}`, { icon: "play", kind: "slim", text: false, onclick: () => this.#play(path, title) }),
      h(
        "div",
        { class: "row-main" },
        h("div", { class: "clip" }, title),
        h(
          "div",
          { class: "small faint clip" },
          [Number.isFinite(one.seconds) && duration(one.seconds), bytes(one.bytes)].filter(Boolean).join(" · "),
        ),
      ),
      one.open && h("span", { class: "pill bad" }, h("span", { class: "dot" }), "Recording"),
      h(
        "a",
        {
          class: "button slim square plain",
          href: `${path}?download=1`,
          download: one.name,
          "aria-label": `Download ${title}`,
          title: "Download",
        },
        icon("down"),
      ),
    );
  }

  #play(path, title) {
    const failed = h("p", { class: "wrong", role: "alert", hidden: true });
    const video = h("video", { src: path, controls: true, autoplay: true, playsinline: true, class: "playback" });
    video.onerror = () => {
      failed.hidden = false;
      failed.textContent = "This recording cannot be played here. Download it and play it in another player.";
    };
    const close = button("Close", { icon: "close", kind: "plain slim", text: false, onclick: () => dialog.close() });
    const dialog = h(
      "dialog",
      { class: "wide", "aria-labelledby": "playback-title" },
      h(
        "div",
        { class: "dialog-head" },
        h("h2", { id: "playback-title" }, title),
        h("a", { class: "button slim", href: `${path}?download=1`, download: "" }, icon("down"), "Download"),
        close,
      ),
      video,
      failed,
    );
    dialog.addEventListener("close", () => {
      video.removeAttribute("src");
      video.load();
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
    close.focus();
  }
}

// Two videos played as one, before and after on both sides of a divider.

import { Divider } from "./divider.js";
import { button, fill, h, icon, slide, write } from "./dom.js";
import { timecode } from "./words.js";
import { Zoom, scale } from "./zoom.js";

/** Differences of position: beyond JUMP_S the original jumps; down to NUDGE_S its playback rate changes. */
const JUMP_S = 0.25;
const NUDGE_S = 0.02;
const SPEEDS = [0.25, 0.5, 1, 2];

/** Shows a layer left of the divider only. */
const cut = (layer) => (at) => {
  layer.style.clipPath = `inset(0 ${(1 - at) * 100}% 0 0)`;
};

export class Player {
  #frame = 0;
  #speed = 1;
  #stopped = false;

  /** `before` and `after` are addresses of videos; `frameSeconds` is the length of one frame. */
  constructor(before, after, { frameSeconds = 0.04 } = {}) {
    this.frameSeconds = frameSeconds;
    const video = (src, label) =>
      h("video", { src, preload: "auto", playsinline: true, tabindex: "-1", "aria-label": label });
    this.before = video(before, "Original");
    this.after = video(after, "Restored");
    this.before.muted = true; // the restored one has the same sound
    this.failed = h("div", { class: "veil", hidden: true });
    const tags = [h("span", { class: "tag left" }, "Original"), h("span", { class: "tag right" }, "Restored")];
    const layer = h("div", { class: "layer" }, this.before);
    this.frame = h("div", { class: "frame" }, this.after, layer, tags, this.failed);
    this.divider = new Divider(this.frame, cut(layer));
    this.zoom = new Zoom(this.frame, scale([this.before, this.after]));
    this.playButton = button("Play", { icon: "play", text: false, onclick: () => this.toggle() });
    this.soundButton = button("Mute", { icon: "sound", kind: "plain", text: false, onclick: () => this.#mute() });
    this.seek = h("input", {
      type: "range",
      min: 0,
      max: 1000,
      step: 1,
      value: 0,
      "aria-label": "Position",
      oninput: () => {
        slide(this.seek);
        this.to((this.seek.value / 1000) * this.duration);
      },
    });
    this.time = h("span", { class: "small soft player-time" }, "0:00 / 0:00");
    this.speed = h(
      "select",
      { "aria-label": "Speed", onchange: () => this.#setSpeed(Number(this.speed.value)) },
      SPEEDS.map((speed) => h("option", { value: speed, selected: speed === 1 }, `${speed}×`)),
    );
    const full = () => (document.fullscreenElement ? document.exitFullscreen() : this.frame.requestFullscreen());
    this.element = h(
      "div",
      { class: "player", role: "group", "aria-label": "Player, original and restored", onkeydown: (e) => this.#key(e) },
      h("div", { class: "player-stage" }, this.frame),
      h("div", { class: "player-seek" }, this.seek, this.time),
      h(
        "div",
        { class: "picture-bar" },
        this.playButton,
        button("One frame back", { icon: "step", kind: "plain", text: false, onclick: () => this.step(-1) }),
        button("One frame on", { icon: "stepnext", kind: "plain", text: false, onclick: () => this.step(1) }),
        h("span", { class: "grow" }),
        this.zoom.button,
        this.speed,
        this.soundButton,
        button("Full screen", { icon: "full", kind: "plain", text: false, onclick: full }),
      ),
    );
    this.after.addEventListener("loadedmetadata", () => this.#shape());
    this.after.addEventListener("ended", () => this.pause());
    for (const each of [this.before, this.after]) each.addEventListener("error", () => this.#fail(each));
    this.#follow();
  }

  get duration() {
    return Number.isFinite(this.after.duration) ? this.after.duration : 0;
  }

  get playing() {
    return !this.after.paused;
  }

  stop() {
    this.#stopped = true;
    cancelAnimationFrame(this.#frame);
    for (const each of [this.before, this.after]) {
      each.pause();
      each.removeAttribute("src");
      each.load();
    }
  }

  async toggle() {
    if (this.playing) this.pause();
    else {
      if (this.after.ended) this.to(0);
      this.before.currentTime = this.after.currentTime;
      await Promise.allSettled([this.before.play(), this.after.play()]);
      this.#showPlaying();
    }
  }

  pause() {
    this.after.pause();
    this.before.pause();
    this.before.currentTime = this.after.currentTime;
    this.#showPlaying();
  }

  to(seconds) {
    const at = Math.min(this.duration, Math.max(0, seconds));
    this.before.currentTime = this.after.currentTime = at;
  }

  step(frames) {
    this.pause();
    this.to(this.after.currentTime + frames * this.frameSeconds);
  }

  #setSpeed(speed) {
    this.#speed = speed;
    this.before.playbackRate = this.after.playbackRate = speed;
  }

  #mute() {
    this.after.muted = !this.after.muted;
    fill(this.soundButton, icon(this.after.muted ? "silent" : "sound"));
    this.soundButton.setAttribute("aria-label", this.after.muted ? "Sound on" : "Mute");
  }

  #showPlaying() {
    fill(this.playButton, icon(this.playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.playButton.title = this.playButton.getAttribute("aria-label");
  }

  #shape() {
    const { videoWidth, videoHeight } = this.after;
    if (!videoWidth) return;
    this.frame.style.aspectRatio = `${videoWidth} / ${videoHeight}`;
    this.frame.style.setProperty("--shape", String(videoWidth / videoHeight));
  }

  #fail(which) {
    if (this.#stopped) return;
    this.failed.hidden = false;
    const what = which === this.before ? "The original" : "The result";
    fill(
      this.failed,
      icon("broken"),
      h("strong", {}, `${what} cannot be played here`),
      h("span", {}, "The browser does not know its codec. Download it and play it in another player."),
    );
  }

  #key(event) {
    if (event.target.matches("input, select, button")) return;
    const moves = { " ": () => this.toggle(), ",": () => this.step(-1), ".": () => this.step(1) };
    if (!(event.key in moves)) return;
    event.preventDefault();
    moves[event.key]();
  }

  /** Keeps the two videos together and shows the position; called for each frame of the screen. */
  #follow() {
    if (this.#stopped) return;
    const offset = this.after.currentTime - this.before.currentTime;
    if (this.playing && !this.before.seeking && !this.after.seeking) {
      if (Math.abs(offset) > JUMP_S) this.before.currentTime = this.after.currentTime;
      const nudge = Math.abs(offset) > NUDGE_S ? 1 + Math.max(-0.1, Math.min(0.1, offset)) : 1;
      const rate = this.#speed * nudge;
      if (Math.abs(this.before.playbackRate - rate) > 0.001) this.before.playbackRate = rate;
    }
    if (this.duration && document.activeElement !== this.seek) {
      slide(this.seek, Math.round((this.after.currentTime / this.duration) * 1000));
    }
    const now = `${timecode(this.after.currentTime)} / ${timecode(this.duration)}`;
    write(this.time, now);
    if (this.said !== now) this.seek.setAttribute("aria-valuetext", (this.said = now));
    this.#frame = requestAnimationFrame(() => this.#follow());
  }
}

/** Two still pictures under the divider. */
export class Stills {
  constructor(before, after) {
    const pictures = [h("img", { src: after, alt: "Restored" }), h("img", { src: before, alt: "Original" })];
    const tags = [h("span", { class: "tag left" }, "Original"), h("span", { class: "tag right" }, "Restored")];
    const layer = h("div", { class: "layer" }, pictures[1]);
    this.frame = h("div", { class: "frame stills" }, pictures[0], layer, tags);
    pictures[0].onload = () => {
      const { naturalWidth, naturalHeight } = pictures[0];
      this.frame.style.aspectRatio = `${naturalWidth} / ${naturalHeight}`;
      this.frame.style.setProperty("--shape", String(naturalWidth / naturalHeight));
    };
    this.divider = new Divider(this.frame, cut(layer));
    const zoom = new Zoom(this.frame, scale(pictures));
    this.element = h(
      "div",
      { class: "player" },
      h("div", { class: "player-stage" }, this.frame),
      h("div", { class: "picture-bar" }, h("span", { class: "grow" }), zoom.button),
    );
  }

  stop() {}
}

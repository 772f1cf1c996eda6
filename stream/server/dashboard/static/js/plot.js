// Curves of delay and load over the last hour; a cross-hair reads values by mouse, touch and keys.

import { fill, h, svg, write } from "./dom.js";
import { clock, fps, milliseconds, percent, plural } from "./words.js";

const HOUR_S = 3600;
const GAP_S = 45;
const LEFT = 52;
const RIGHT = 14;
const PANELS = [
  { key: "delay", label: "Delay", top: 22, height: 96, format: milliseconds, colour: "plot-delay" },
  { key: "load", label: "Load", top: 152, height: 64, format: percent, colour: "plot-load" },
];
const HEIGHT = 244;

/** The round number above `value` for the top of an axis. */
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 5, 10].find((step) => value <= step * power * 1.0001);
}

export class Plot {
  #points = [];
  #at = null;
  #width = 0;

  constructor() {
    this.picture = svg("svg", { class: "plot", role: "img", tabindex: "0" });
    this.readout = h("p", { class: "plot-readout small", "aria-live": "polite" });
    this.element = h("div", { class: "plot-holder" }, this.picture, this.readout);
    this.observer = new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      this.#draw();
    });
    this.observer.observe(this.element);
    this.picture.addEventListener("pointermove", (event) => this.#point(event));
    this.picture.addEventListener("pointerdown", (event) => this.#point(event));
    this.picture.addEventListener("pointerleave", () => this.#look(null));
    this.picture.addEventListener("blur", () => this.#look(null));
    this.picture.addEventListener("keydown", (event) => this.#key(event));
  }

  stop() {
    this.observer.disconnect();
  }

  /** Points of the history: {at, delay_ms, load, fps}, oldest first. */
  set(points) {
    this.#points = points.map((point) => ({
      at: typeof point.at === "number" ? point.at : Date.parse(point.at) / 1000,
      delay: point.delay_ms,
      load: point.load,
      fps: point.fps,
    }));
    this.#draw();
  }

  get #now() {
    return Math.max(Date.now() / 1000, this.#points.at(-1)?.at ?? 0);
  }

  #x(at) {
    return LEFT + (1 - (this.#now - at) / HOUR_S) * (this.#width - LEFT - RIGHT);
  }

  #point(event) {
    const box = this.picture.getBoundingClientRect();
    const x = event.clientX - box.left;
    let nearest = null;
    for (const [n, point] of this.#points.entries()) {
      const off = Math.abs(this.#x(point.at) - x);
      if (nearest === null || off < nearest.off) nearest = { n, off };
    }
    this.#look(nearest && nearest.off < 24 ? nearest.n : null);
  }

  #key(event) {
    const last = this.#points.length - 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -last, End: last };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    const from = this.#at ?? last;
    this.#look(Math.min(last, Math.max(0, from + moves[event.key])));
  }

  #look(n) {
    if (this.#at === n) return;
    this.#at = n;
    this.#draw();
  }

  #path(key, top, height, most) {
    let path = "";
    let before = null;
    for (const point of this.#points) {
      const value = point[key];
      if (!Number.isFinite(value)) {
        before = null;
        continue;
      }
      const x = this.#x(point.at).toFixed(1);
      const y = (top + height * (1 - Math.min(1, value / most))).toFixed(1);
      path += `${before !== null && point.at - before < GAP_S ? "L" : "M"}${x} ${y}`;
      before = point.at;
    }
    return path;
  }

  #draw() {
    const width = this.#width;
    if (width < 80) return;
    fill(this.picture);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.picture.setAttribute("height", String(HEIGHT));
    const text = (x, y, label, anchor = "start", kind = "axis") =>
      svg("text", { x, y, class: kind, "text-anchor": anchor }, label);
    const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
    const bottom = PANELS[1].top + PANELS[1].height;
    for (const minutes of width < 480 ? [60, 30, 0] : [60, 45, 30, 15, 0]) {
      const x = this.#x(this.#now - minutes * 60);
      const anchor = minutes === 0 ? "end" : minutes === 60 ? "start" : "middle";
      this.picture.append(text(x, bottom + 18, minutes ? `${minutes} min ago` : "now", anchor));
      for (const panel of PANELS) {
        this.picture.append(line(x, panel.top, x, panel.top + panel.height, "grid"));
      }
    }
    for (const { key, label, top, height, format, colour } of PANELS) {
      const highest = Math.max(0, ...this.#points.map((point) => point[key] || 0));
      const most = key === "load" ? Math.max(1, niceTop(highest)) : niceTop(Math.max(highest, 100));
      for (const part of [0, 0.5, 1]) {
        const y = top + height * (1 - part);
        this.picture.append(line(LEFT, y, width - RIGHT, y, part === 0 ? "base" : "grid"));
        this.picture.append(text(LEFT - 8, y + 4, format(most * part), "end"));
      }
      this.picture.append(text(LEFT, top - 7, label, "start", "panel-name"));
      this.picture.append(svg("path", { d: this.#path(key, top, height, most), class: `curve ${colour}` }));
      const point = this.#points[this.#at];
      if (point && Number.isFinite(point[key])) {
        const y = top + height * (1 - Math.min(1, point[key] / most));
        this.picture.append(svg("circle", { cx: this.#x(point.at), cy: y, r: 3.5, class: colour }));
      }
    }
    const point = this.#points[this.#at];
    if (point) {
      const x = this.#x(point.at);
      this.picture.insertBefore(line(x, PANELS[0].top, x, bottom, "cross"), this.picture.firstChild);
    }
    write(this.readout, this.#words(point));
    this.picture.setAttribute("aria-label", `Delay and load over the last hour. ${this.#words()}`);
  }

  #words(point) {
    if (point) {
      const parts = [`delay ${milliseconds(point.delay)}`, `load ${percent(point.load)}`, `${fps(point.fps)} fps`];
      return `${clock(point.at)}: ${parts.join(", ")}`;
    }
    const delays = this.#points.map((one) => one.delay).filter(Number.isFinite);
    if (delays.length === 0) return "No figures yet: a point is added every ten seconds.";
    const sorted = [...delays].sort((a, b) => a - b);
    const minutes = Math.max(1, Math.round((this.#points.at(-1).at - this.#points[0].at) / 60));
    const median = milliseconds(sorted[Math.floor(sorted.length / 2)]);
    return `Over ${plural(minutes, "minute")}: delay ${median} in the median, ${milliseconds(sorted.at(-1))} at most.`;
  }
}

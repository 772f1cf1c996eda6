// The divider between before and after: dragged over the picture, or moved by keys.

import { h, icon } from "./dom.js";

const STEP = 0.02;
const PAGE_STEP = 0.1;
/** A shorter movement, in px, is a click and does not move the divider. */
const CLICK_PX = 4;

/** Puts a divider on `frame`; `onmove` gets its position, 0 (left) to 1. */
export class Divider {
  constructor(frame, onmove, at = 0.5) {
    this.frame = frame;
    this.onmove = onmove;
    this.at = at;
    this.handle = h(
      "div",
      {
        class: "divider",
        role: "slider",
        tabindex: "0",
        "aria-label": "Divider between original and restored",
        "aria-orientation": "horizontal",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        onkeydown: (event) => this.#key(event),
      },
      h("span", { class: "divider-grip" }, icon("back"), icon("next")),
    );
    frame.append(this.handle);
    frame.addEventListener("pointerdown", (event) => this.#down(event));
    frame.addEventListener("pointermove", (event) => this.#drag(event));
    this.move(at);
  }

  show(shown) {
    this.handle.hidden = !shown;
  }

  move(at) {
    this.at = Math.min(1, Math.max(0, at));
    const percent = Math.round(this.at * 100);
    this.handle.style.left = `${this.at * 100}%`;
    this.handle.setAttribute("aria-valuenow", String(percent));
    this.handle.setAttribute("aria-valuetext", `${percent} % original, ${100 - percent} % restored`);
    this.onmove(this.at);
  }

  #down(event) {
    if (this.handle.hidden || event.button !== 0 || event.target.closest("button, a, input, .region")) return;
    this.frame.setPointerCapture(event.pointerId);
    this.dragging = event.pointerId;
    this.from = event.target.closest(".divider") ? null : event.clientX;
    this.handle.focus({ preventScroll: true });
    event.preventDefault();
    const drop = () => {
      this.dragging = null;
    };
    this.frame.addEventListener("pointerup", drop, { once: true });
    this.frame.addEventListener("pointercancel", drop, { once: true });
  }

  #drag(event) {
    if (this.dragging !== event.pointerId) return;
    if (this.from !== null && Math.abs(event.clientX - this.from) < CLICK_PX) return;
    this.from = null;
    const box = this.frame.getBoundingClientRect();
    this.move((event.clientX - box.left) / box.width);
  }

  #key(event) {
    const moves = {
      ArrowLeft: this.at - STEP,
      ArrowDown: this.at - STEP,
      ArrowRight: this.at + STEP,
      ArrowUp: this.at + STEP,
      PageDown: this.at - PAGE_STEP,
      PageUp: this.at + PAGE_STEP,
      Home: 0,
      End: 1,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(moves[event.key]);
  }
}

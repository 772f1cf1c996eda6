// Magnification of a picture: a button goes through the factors; a double click also chooses the centre.

import { button, write } from "./dom.js";

const FACTORS = [1, 2, 4];

/** `onzoom` gets the factor and the part that is shown: left, top and size as fractions of the picture. */
export class Zoom {
  #middle = [0.5, 0.5];

  constructor(frame, onzoom) {
    this.frame = frame;
    this.onzoom = onzoom;
    this.factor = 1;
    this.button = button("1×", { icon: "search", kind: "slim plain", onclick: () => this.next() });
    frame.addEventListener("dblclick", (event) => {
      if (event.target.closest(".divider, .region")) return;
      const box = frame.getBoundingClientRect();
      this.next([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    });
    this.to(1);
  }

  /** The next factor, centred on `at`, a position within what is shown. */
  next(at = [0.5, 0.5]) {
    this.to(FACTORS[(FACTORS.indexOf(this.factor) + 1) % FACTORS.length], at);
  }

  to(factor, at = [0.5, 0.5]) {
    const least = 0.5 / factor;
    this.#middle = this.#middle.map((middle, n) =>
      Math.min(1 - least, Math.max(least, middle + (at[n] - 0.5) / this.factor)),
    );
    this.factor = factor;
    write(this.button.lastChild, `${factor}×`);
    this.button.setAttribute("aria-label", `Magnification ${factor}×`);
    this.button.title = "Magnify; a double click on the picture chooses the centre";
    this.frame.classList.toggle("zoomed", factor > 1);
    this.onzoom(factor, [this.#middle[0] - least, this.#middle[1] - least, 2 * least]);
  }
}

/** Magnifies elements that fill the frame. */
export function scale(elements) {
  return (factor, [left, top]) => {
    for (const element of elements) {
      element.style.transformOrigin = "0 0";
      element.style.transform = factor > 1 ? `scale(${factor}) translate(${-left * 100}%, ${-top * 100}%)` : "";
    }
  };
}

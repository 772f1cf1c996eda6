// Strength, interval, model and preset of one camera: every change is applied at once.

import { cameraPath, get, post } from "./api.js";
import { add, fill, h, slide, write } from "./dom.js";
import { fail } from "./notices.js";
import { percent, plural } from "./words.js";

const SETTLE_MS = 250;
/** Reports are not shown for this long after a change: they may be older than the change. */
const AFTER_CHANGE_MS = 4000;

const label = (one) => (typeof one === "string" ? one : (one.title ?? one.label ?? one.name));
const nameOf = (one) => (typeof one === "string" ? one : one.name);

/** Models and presets that can be chosen. */
export async function choices() {
  const [models, presets] = await Promise.all([get("/api/models"), get("/api/presets")]);
  return { models: models.models ?? models, presets: presets.presets ?? presets };
}

/** Fills a select; what is not installed is marked and cannot be chosen. */
export function fillSelect(select, list, chosen) {
  fill(
    select,
    list.map((one) => {
      const missing = one.present === false || one.installed === false;
      return h(
        "option",
        { value: nameOf(one), disabled: missing },
        missing ? `${label(one)} (not installed)` : label(one),
      );
    }),
  );
  if (chosen && !list.some((one) => nameOf(one) === chosen)) {
    select.prepend(h("option", { value: chosen }, chosen));
  }
  if (chosen) select.value = chosen;
}

export class Controls {
  #pending = {};
  #timer = 0;
  #ownUntil = 0;
  #one = null;

  constructor(name) {
    this.name = name;
    this.strength = h("input", { type: "range", id: "strength", min: 0, max: 100, step: 1 });
    this.interval = h("input", { type: "range", id: "interval", min: 1, max: 30, step: 1 });
    this.preset = h("select", { id: "preset" });
    this.model = h("select", { id: "model" });
    this.passing = h("input", { type: "checkbox", role: "switch", id: "passing" });
    this.strengthText = h("output", { for: "strength" });
    this.intervalText = h("output", { for: "interval" });
    this.state = h("span", { class: "small faint", role: "status" });
    const field = (input, text, output, hint) =>
      h(
        "div",
        { class: "field" },
        h("div", { class: "field-line" }, h("label", { for: input.id }, text), output),
        input,
        hint && h("p", { class: "hint" }, hint),
      );
    this.element = h(
      "section",
      { class: "panel", "aria-labelledby": "controls-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "controls-title" }, "Restoration"), this.state),
      h(
        "div",
        { class: "panel-body" },
        field(this.strength, "Strength", this.strengthText),
        field(this.interval, "Interval", this.intervalText, "Frames in between reuse the restored face."),
        h("div", { class: "field-pair" }, field(this.preset, "Preset"), field(this.model, "Model")),
        h(
          "label",
          { class: "switch" },
          h("span", {}, h("strong", {}, "Pass through"), h("span", { class: "hint" }, "Leave every face as it is")),
          this.passing,
        ),
      ),
    );
    this.strength.oninput = () => this.#change({ strength: Number(this.strength.value) / 100 });
    this.interval.oninput = () => this.#change({ interval: Number(this.interval.value) });
    this.preset.onchange = () => this.#change({ preset: this.preset.value });
    this.model.onchange = () => this.#change({ model: this.model.value });
    this.passing.onchange = () => this.#change({ passing: this.passing.checked });
    choices().then(({ models, presets }) => {
      fillSelect(this.preset, presets, this.#one?.preset);
      fillSelect(this.model, models, this.#one?.model);
    }, fail);
  }

  update(one) {
    this.#one = one;
    const off = !one.enabled;
    for (const input of [this.strength, this.interval, this.preset, this.model, this.passing]) input.disabled = off;
    if (performance.now() < this.#ownUntil) return;
    if (Number.isFinite(one.strength)) slide(this.strength, Math.round(one.strength * 100));
    if (Number.isFinite(one.interval)) slide(this.interval, one.interval);
    this.passing.checked = Boolean(one.passing);
    for (const [select, value] of [
      [this.preset, one.preset],
      [this.model, one.model],
    ]) {
      if (!value || select.options.length === 0 || document.activeElement === select) continue;
      if (![...select.options].some((option) => option.value === value)) {
        add(select, [h("option", { value }, value)]);
      }
      select.value = value;
    }
    this.#words();
  }

  #words() {
    const every = Number(this.interval.value);
    slide(this.strength);
    slide(this.interval);
    write(this.strengthText, percent(Number(this.strength.value) / 100));
    write(this.intervalText, every === 1 ? "every frame" : `every ${plural(every, "frame")}`);
    this.interval.setAttribute("aria-valuetext", this.intervalText.textContent);
    this.strength.setAttribute("aria-valuetext", this.strengthText.textContent);
  }

  #change(changes) {
    Object.assign(this.#pending, changes);
    this.#ownUntil = performance.now() + AFTER_CHANGE_MS;
    this.#words();
    write(this.state, "Applying");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#send(), SETTLE_MS);
  }

  async #send() {
    const changes = this.#pending;
    this.#pending = {};
    try {
      await post(`${cameraPath(this.name)}/change`, changes);
      this.#ownUntil = performance.now() + AFTER_CHANGE_MS;
      write(this.state, "Applied");
    } catch (error) {
      this.#ownUntil = 0;
      if (this.#one) this.update(this.#one);
      write(this.state, "Not applied");
      fail(error);
    }
  }
}

// The form that adds a camera or changes its settings; the address can be tested before it is saved.

import { cameraPath, get, post, put } from "../api.js";
import { choices, fillSelect } from "../controls.js";
import { button, fill, h, icon, slide, write } from "../dom.js";
import { fail, say } from "../notices.js";
import { Outputs } from "../outputs.js";
import { Schedule } from "../schedule.js";
import { camera, store } from "../store.js";
import { capital, number } from "../words.js";

const NAME = "[A-Za-z0-9_\\-]{1,40}";
const EXAMPLES = [
  ["RTSP", "rtsp://user:password@192.168.1.20:554/stream"],
  ["RTMP", "rtmp://server/live/key"],
  ["HTTP", "http://192.168.1.20/video.mjpg"],
  ["Webcam", "webcam:0"],
  ["File", "file:entrance.mp4"],
  ["Test picture", "test:"],
];

export function editPage(page, { setTitle, name, query }) {
  setTitle(name ? `Edit ${name}` : "Add camera");
  page.classList.add("narrow");
  let left = false;
  if (!name) build(page, null, query.get("source") ?? "");
  else {
    fill(page, h("div", { class: "bone bone-head" }), h("div", { class: "bone bone-picture" }));
    get(cameraPath(name)).then(
      (one) => left || build(page, camera(one), ""),
      (error) => {
        location.hash = "#/";
        fail(error);
      },
    );
  }
  return () => {
    left = true;
  };
}

function part(title, text, ...fields) {
  const about = h("p", { class: "small faint", id: `about-${title.toLowerCase().replaceAll(" ", "-")}` }, text);
  return h(
    "fieldset",
    { class: "form-part", "aria-describedby": about.id },
    h("legend", { class: "unseen" }, title),
    h("div", { class: "form-about" }, h("h2", { "aria-hidden": "true" }, title), about),
    h("div", { class: "form-fields" }, fields),
  );
}

function labelled(input, text, hint) {
  const note = hint && h("p", { class: "hint", id: `${input.id}-hint` }, hint);
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, text), input, note);
}

/** Settings from lines such as "latency.budget_ms = 300"; throws an Error that names a wrong line. */
export function readSettings(text) {
  const settings = {};
  for (const line of text.split("\n").map((each) => each.trim())) {
    if (!line || line.startsWith("#")) continue;
    const match = line.match(/^([a-z_]+(?:\.[a-z_]+)+)\s*[=:]\s*(.+)$/);
    if (!match) throw new Error(`“${line}” is no setting: write section.key = value`);
    try {
      settings[match[1]] = JSON.parse(match[2]);
    } catch {
      settings[match[1]] = match[2];
    }
  }
  return settings;
}

function build(page, one, source) {
  const old = one && { ...one.settings, name: one.name };
  const set = { ...old?.set };
  const gate = Boolean(set["motion.gate"]);
  delete set["motion.gate"];
  const name = h("input", {
    class: "input",
    id: "name",
    required: true,
    pattern: NAME,
    maxlength: 40,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "entrance",
    value: old?.name ?? "",
    readonly: Boolean(old),
  });
  const address = h("input", {
    class: "input mono",
    id: "source",
    required: !old,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    placeholder: old ? old.source : EXAMPLES[0][1],
    value: source,
  });
  const examples = h(
    "div",
    { class: "examples", role: "group", "aria-label": "Examples of addresses" },
    EXAMPLES.map(([label, example]) =>
      button(label, {
        kind: "slim plain",
        onclick: () => {
          address.value = example;
          address.focus();
          if (example.length > 10) address.setSelectionRange(example.indexOf(":") + 1, example.length);
        },
      }),
    ),
  );
  const tester = new Tester(address, old?.source);
  const preset = h("select", { id: "edit-preset" });
  const motion = h("input", { type: "checkbox", role: "switch", id: "motion", checked: gate });
  const enabled = h("input", { type: "checkbox", role: "switch", id: "enabled", checked: old?.enabled ?? true });
  const priority = h("input", { type: "range", id: "priority", min: 1, max: 10, value: old?.priority ?? 5 });
  const priorityText = h("output", { for: "priority" });
  const showPriority = () => {
    slide(priority);
    write(priorityText, `${priority.value} of 10`);
  };
  priority.oninput = showPriority;
  showPriority();
  const outputs = new Outputs(old?.to ?? []);
  const schedule = new Schedule(old?.schedule ?? []);
  const more = h("textarea", {
    class: "input mono",
    id: "more",
    rows: 4,
    spellcheck: "false",
    placeholder: "latency.budget_ms = 300\nsource.transport = tcp",
    value: Object.entries(set)
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}`)
      .join("\n"),
  });
  const wrong = h("p", { class: "banner bad", role: "alert", hidden: true, tabindex: "-1" });
  const save = h("button", { class: "button primary", type: "submit" }, old ? "Save" : "Add camera");
  const back = old ? `#/camera/${encodeURIComponent(old.name)}` : "#/";

  const form = h(
    "form",
    { class: "panel form", onsubmit: send, "aria-label": old ? `Edit ${old.name}` : "Add camera" },
    part(
      "Camera",
      "The address as the camera's manual gives it. A user and a password in it are never shown again.",
      labelled(name, "Name", old ? "The name cannot be changed." : "Up to 40 letters, digits, - and _."),
      h(
        "div",
        { class: "field" },
        h("label", { for: "source" }, "Address"),
        h("div", { class: "form-row" }, address, tester.button),
        old ? h("p", { class: "hint" }, "Leave it empty to keep the present address.") : examples,
      ),
      tester.result,
    ),
    part("Restoration", "Strength, model and interval are changed on the camera's own page, over its live picture.", [
      labelled(preset, "Preset"),
      toggle(motion, "Only while something moves", "Without motion the picture is decoded but not restored."),
    ]),
    part("Outputs", "Where the restored picture goes, besides these pages.", outputs.element),
    part(
      "Working hours",
      "Outside of these hours the camera is paused. A higher priority gives it a larger share of a busy machine.",
      toggle(enabled, "Switched on"),
      schedule.element,
      h(
        "div",
        { class: "field" },
        h("div", { class: "field-line" }, h("label", { for: "priority" }, "Priority"), priorityText),
        priority,
      ),
    ),
    part(
      "More settings",
      "Any setting of the configuration, one per line; it overrides the preset.",
      labelled(more, "Settings", "section.key = value"),
    ),
    h("div", { class: "form-foot" }, wrong, h("a", { class: "button plain", href: back }, "Cancel"), save),
  );
  fill(
    page,
    h(
      "div",
      { class: "head" },
      h(
        "div",
        { class: "title" },
        h("a", { class: "crumb", href: back }, icon("back"), old ? old.name : "Cameras"),
        h("h1", {}, old ? `Edit ${old.name}` : "Add camera"),
      ),
    ),
    form,
  );
  choices().then(({ presets }) => {
    const names = presets.map((one) => one.name ?? one);
    fillSelect(preset, presets, old?.preset ?? (names.includes("default") ? "default" : names[0]));
  }, fail);

  async function send(event) {
    event.preventDefault();
    wrong.hidden = true;
    save.disabled = true;
    try {
      const set = readSettings(more.value);
      if (motion.checked) set["motion.gate"] = true;
      const settings = {
        source: address.value.trim() || old?.source,
        to: outputs.texts,
        preset: preset.value,
        set,
        priority: Number(priority.value),
        schedule: schedule.lines,
        enabled: enabled.checked,
      };
      if (old) await put(cameraPath(old.name), { ...one.settings, ...settings });
      else await post("/api/cameras", { name: name.value.trim(), ...settings });
      await store.refresh();
      say(old ? `${old.name} was changed` : `${name.value.trim()} was added`);
      location.hash = `#/camera/${encodeURIComponent(old ? old.name : name.value.trim())}`;
    } catch (error) {
      fill(wrong, icon("alert"), h("span", { class: "clip-lines" }, error.message));
      wrong.hidden = false;
      wrong.focus();
    }
    save.disabled = false;
  }
}

function toggle(input, text, hint) {
  return h(
    "label",
    { class: "switch" },
    h("span", {}, h("strong", {}, text), hint && h("span", { class: "hint" }, hint)),
    input,
  );
}

/** The Test button, and the first picture or the reason why there is none. */
class Tester {
  constructor(address, shownAddress) {
    this.address = address;
    this.shownAddress = shownAddress;
    this.button = button("Test", { onclick: () => this.#test() });
    this.result = h("div", { class: "tested", "aria-live": "polite", hidden: true });
    address.addEventListener("input", () => {
      this.result.hidden = true;
    });
  }

  async #test() {
    // The shown address has no password; the server inserts it.
    const source = this.address.value.trim() || this.shownAddress;
    if (!source) {
      this.address.focus();
      this.#show("alert", "warn", "Type an address first");
      return;
    }
    this.button.disabled = true;
    this.#show("cameras", "", "Connecting", "The first picture is shown here; it takes up to ten seconds.");
    try {
      const answer = await post("/api/test", { source });
      if (answer.ok) this.#picture(answer);
      else this.#show("broken", "bad", "No picture", answer.reason);
    } catch (error) {
      this.#show("broken", "bad", "No picture", error.message);
    }
    this.button.disabled = false;
  }

  #show(drawing, tone, title, text) {
    this.result.hidden = false;
    this.result.className = `tested ${tone}`;
    fill(this.result, icon(drawing), h("div", {}, h("strong", {}, title), text && h("p", { class: "wrap" }, text)));
  }

  #picture({ picture, facts }) {
    const data = Uint8Array.from(atob(picture ?? ""), (letter) => letter.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([data], { type: "image/jpeg" }));
    const image = h("img", { src: address, alt: "First picture of the camera" });
    image.onload = () => URL.revokeObjectURL(address);
    const rows = Object.entries(facts ?? {}).filter(([, value]) => value !== null && value !== "");
    this.result.hidden = false;
    this.result.className = "tested good pictured";
    fill(
      this.result,
      image,
      h(
        "div",
        {},
        h("strong", { class: "tone-good" }, "It works"),
        h(
          "dl",
          { class: "facts-list" },
          rows.map(([key, value]) => [h("dt", {}, capital(key.replaceAll("_", " "))), h("dd", {}, factText(value))]),
        ),
      ),
    );
  }
}

function factText(value) {
  if (Array.isArray(value)) return value.join(" × ");
  return typeof value === "number" ? number(value, Number.isInteger(value) ? 0 : 2) : String(value);
}

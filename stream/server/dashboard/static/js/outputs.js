// The outputs of a camera's restored picture: one row for each.

import { button, fill, h } from "./dom.js";

// Kind, title, prefix of the address, an example of the rest, an explanation.
const KINDS = [
  ["folder", "Record on disk", "", "entrance/", "A folder in the server's data folder; segments are stored there."],
  ["mjpeg", "MJPEG over HTTP", "mjpeg:", "8090", "A port of this machine."],
  ["rtsp", "Publish by RTSP", "rtsp://", "server:8554/entrance", "The address to publish to."],
  ["rtmp", "Publish by RTMP", "rtmp://", "server/live/key", "The address to publish to."],
  ["hls", "HLS", "hls:", "entrance-hls", "A folder in the server's data folder."],
  ["whip", "WebRTC by WHIP", "whip:", "https://server/whip", "The address to publish to."],
  ["snapshots", "Snapshots of faces", "snapshots:", "faces", "A folder in the server's data folder."],
  ["file", "One file", "", "entrance.mkv", "A file in the server's data folder, .mp4 or .mkv."],
];

function split(text) {
  const kind = KINDS.find(([, , prefix]) => prefix && text.startsWith(prefix));
  if (kind) return { kind: kind[0], rest: text.slice(kind[2].length) };
  return { kind: /\.(mp4|mkv)$/i.test(text) ? "file" : "folder", rest: text };
}

export class Outputs {
  #rows;

  constructor(texts = []) {
    this.#rows = texts.map(split);
    this.element = h("div", { class: "stack" });
    this.#draw();
  }

  get texts() {
    return this.#rows
      .filter((row) => row.rest.trim())
      .map((row) => {
        const prefix = KINDS.find(([key]) => key === row.kind)[2];
        const rest = row.rest.trim();
        if (row.kind === "folder" && !rest.endsWith("/")) return `${rest}/`;
        return rest.startsWith(prefix) ? rest : prefix + rest;
      });
  }

  #draw() {
    const rows = this.#rows.map((row, n) => {
      const hint = h("p", { class: "hint", id: `output-hint-${n}` });
      const input = h("input", {
        class: "input mono",
        value: row.rest,
        autocomplete: "off",
        spellcheck: "false",
        "aria-label": `Target of output ${n + 1}`,
        "aria-describedby": hint.id,
        oninput: () => (row.rest = input.value),
      });
      const explain = () => {
        const [, , , example, meaning] = KINDS.find(([key]) => key === row.kind);
        input.placeholder = example;
        hint.textContent = meaning;
      };
      const kinds = h(
        "select",
        {
          "aria-label": `Kind of output ${n + 1}`,
          value: row.kind,
          onchange: () => {
            row.kind = kinds.value;
            explain();
          },
        },
        KINDS.map(([key, title]) => h("option", { value: key }, title)),
      );
      explain();
      const removeButton = button(`Remove output ${n + 1}`, {
        icon: "close",
        kind: "plain slim",
        text: false,
        onclick: () => {
          this.#rows.splice(n, 1);
          this.#draw();
          this.element.querySelector(".add-row").focus();
        },
      });
      return h("div", { class: "output field" }, h("div", { class: "form-row" }, kinds, input, removeButton), hint);
    });
    const more = button("Add an output", {
      icon: "plus",
      kind: "slim add-row",
      onclick: () => {
        this.#rows.push({ kind: "folder", rest: "" });
        this.#draw();
        this.element.querySelector(".output:last-of-type input")?.focus();
      },
    });
    const text = "None: the picture is shown on these pages only.";
    const none = rows.length === 0 && h("p", { class: "small faint" }, text);
    fill(this.element, none, rows, more);
  }
}

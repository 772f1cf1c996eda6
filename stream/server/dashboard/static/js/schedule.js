// The schedule of a camera: rows of days and hours, which the server gets as "mon-fri 07:00-19:00".

import { button, fill, h } from "./dom.js";

const DAYS = [
  ["mon-sun", "Every day"],
  ["mon-fri", "Monday to Friday"],
  ["sat-sun", "Saturday, Sunday"],
  ["mon", "Monday"],
  ["tue", "Tuesday"],
  ["wed", "Wednesday"],
  ["thu", "Thursday"],
  ["fri", "Friday"],
  ["sat", "Saturday"],
  ["sun", "Sunday"],
];
const PATTERN = /^([a-z,-]+)\s+(\d{1,2}:\d{2})-(\d{1,2}:\d{2})$/i;
const TIME = "([01][0-9]|2[0-3]):[0-5][0-9]|24:00";
const padded = (time) => time.padStart(5, "0");

export class Schedule {
  #rows;

  constructor(lines = []) {
    this.#rows = lines.map((line) => {
      const match = line.trim().match(PATTERN);
      return match ? { days: match[1].toLowerCase(), from: padded(match[2]), to: padded(match[3]) } : { line };
    });
    this.element = h("div", { class: "stack" });
    this.#draw();
  }

  get lines() {
    return this.#rows.map((row) => row.line ?? `${row.days} ${row.from}-${row.to}`);
  }

  #draw() {
    const rows = this.#rows.map((row, n) => {
      const removeButton = button(`Remove time ${n + 1}`, {
        icon: "close",
        kind: "plain slim",
        text: false,
        onclick: () => {
          this.#rows.splice(n, 1);
          this.#draw();
          this.element.querySelector(".add-row").focus();
        },
      });
      if (row.line !== undefined) {
        const oninput = (event) => (row.line = event.target.value);
        const input = h("input", { class: "input mono", value: row.line, "aria-label": `Time ${n + 1}`, oninput });
        return h("div", { class: "form-row" }, input, removeButton);
      }
      const known = DAYS.some(([key]) => key === row.days) ? DAYS : [[row.days, row.days], ...DAYS];
      const time = (key, label) =>
        h("input", {
          class: "input time",
          required: true,
          pattern: TIME,
          maxlength: 5,
          inputmode: "numeric",
          placeholder: "07:00",
          title: "Hours and minutes, 00:00 to 24:00",
          value: row[key],
          "aria-label": `${label}, time ${n + 1}`,
          oninput: (event) => (row[key] = event.target.value),
        });
      return h(
        "div",
        { class: "form-row" },
        h(
          "select",
          {
            "aria-label": `Days, time ${n + 1}`,
            value: row.days,
            onchange: (event) => (row.days = event.target.value),
          },
          known.map(([key, label]) => h("option", { value: key }, label)),
        ),
        time("from", "From"),
        h("span", { class: "faint" }, "to"),
        time("to", "Until"),
        removeButton,
      );
    });
    const more = button("Add a time", {
      icon: "plus",
      kind: "slim add-row",
      onclick: () => {
        this.#rows.push({ days: "mon-fri", from: "07:00", to: "19:00" });
        this.#draw();
        this.element.querySelector(".form-row:last-of-type select")?.focus();
      },
    });
    const none = rows.length === 0 && h("p", { class: "small faint" }, "Always: no time is set.");
    fill(this.element, none, rows, more);
  }
}

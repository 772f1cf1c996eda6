// Events as rows, newest first, by day.

import { h } from "./dom.js";
import { clock, date, day, eventKind } from "./words.js";

export const eventTime = (event) => event.utc ?? event.at ?? event.time;

function row(event, withCamera) {
  const [title, tone] = eventKind(event.kind);
  const when = eventTime(event);
  return h(
    "li",
    { class: "event" },
    h("time", { class: "faint", datetime: date(when).toISOString() }, clock(when)),
    h("span", { class: `dot ${tone ? `tone-${tone}` : "faint"}`, "aria-hidden": "true" }),
    h(
      "div",
      { class: "event-text" },
      h(
        "div",
        { class: "event-title" },
        h("strong", {}, title),
        withCamera &&
          event.camera &&
          h("a", { class: "clip", href: `#/camera/${encodeURIComponent(event.camera)}` }, event.camera),
      ),
      event.text && h("div", { class: "soft wrap" }, event.text),
    ),
  );
}

/** Events as lists of rows, with a heading for each day. */
export function eventDays(events, { withCamera = true } = {}) {
  const days = [];
  let last = null;
  for (const event of events) {
    const title = day(eventTime(event));
    if (title !== last) days.push([title, []]);
    last = title;
    days.at(-1)[1].push(row(event, withCamera));
  }
  return days.map(([title, rows]) =>
    h("section", { class: "event-day" }, h("h3", { class: "faint" }, title), h("ol", {}, rows)),
  );
}

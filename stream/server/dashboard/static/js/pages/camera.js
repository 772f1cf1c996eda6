// One camera: its live picture, controls, figures of the last hour, events and recordings.

import { cameraPath, get, post, put, remove } from "../api.js";
import { Controls } from "../controls.js";
import { button, empty, fill, h, icon, write } from "../dom.js";
import { eventDays } from "../eventlist.js";
import { confirm, fail, say } from "../notices.js";
import { Plot } from "../plot.js";
import { Regions } from "../regions.js";
import { Segments } from "../segments.js";
import { shownState, store } from "../store.js";
import { Viewer } from "../viewer.js";
import { capital, dropCause, duration, fps, milliseconds, number, percent, plural } from "../words.js";

const HISTORY_MS = 10000;
const EVENTS_SHOWN = 12;

export function cameraPage(page, { setTitle, name }) {
  setTitle(name);
  const undo = [];
  let built = false;

  function show() {
    const one = store.cameras.get(name);
    if (one && !built) {
      built = true;
      undo.push(build(page, name));
    } else if (!one && store.loaded) {
      built = false;
      for (const each of undo.splice(0)) each();
      fill(
        page,
        empty(
          "cameras",
          `There is no camera “${name}”`,
          "It may have been removed, or the address is wrong.",
          h("a", { class: "button", href: "#/" }, "To the cameras"),
        ),
      );
    } else if (!one && store.error) {
      fill(page, empty("broken", "The camera cannot be shown", store.error.message));
    } else if (!one) {
      fill(page, h("div", { class: "bone bone-head" }), h("div", { class: "bone bone-picture" }));
    }
  }

  store.addEventListener("cameras", show);
  show();
  return () => {
    store.removeEventListener("cameras", show);
    for (const each of undo) each();
  };
}

function build(page, name) {
  const path = cameraPath(name);
  const viewer = new Viewer(name, store.cameras.get(name).enabled);
  const controls = new Controls(name);
  const plot = new Plot();
  const segments = new Segments(name);
  const regions = new Regions(viewer.frame, async (boxes) => {
    try {
      await post(`${path}/change`, boxes);
      say("Regions saved");
      return true;
    } catch (error) {
      fail(error);
      return false;
    }
  });
  const pill = h("span", { class: "pill" });
  const words = h("p", { class: "soft small wrap", "aria-live": "polite" });
  const level = h("div", { class: "banner", hidden: true });
  const figures = h("dl", { class: "figures" });
  const facts = h("dl", { class: "facts-list" });
  const sinks = h("div", { class: "sinks" });
  const happened = h("div", { class: "event-list" });
  const power = button("Switch off", { onclick: toggle });
  const draw = button("Regions", {
    icon: "region",
    kind: "slim may-hide",
    "aria-label": "Regions",
    "aria-pressed": "false",
    onclick: () => regions.edit(!regions.editing),
  });
  regions.onedit = (editing) => {
    draw.setAttribute("aria-pressed", String(editing));
    viewer.zoom.to(1);
    viewer.divider.show(!editing && viewer.views.querySelector('[aria-pressed="true"]').dataset.key === "compare");
    if (!editing) draw.focus();
  };
  const full = button("Full screen", {
    icon: "full",
    kind: "slim plain",
    text: false,
    onclick: () => (document.fullscreenElement ? document.exitFullscreen() : viewer.frame.requestFullscreen()),
  });

  async function toggle() {
    power.disabled = true;
    const one = store.cameras.get(name);
    try {
      await put(path, { ...one.settings, enabled: !one.enabled });
      await store.refresh();
    } catch (error) {
      fail(error);
    }
    power.disabled = false;
  }

  async function removeCamera() {
    const text = `“${name}” is removed from this server. Its recordings stay on the disk.`;
    if (!(await confirm("Remove this camera?", text, "Remove"))) return;
    try {
      await remove(path);
      store.cameras.delete(name);
      say(`${name} was removed`);
      location.hash = "#/";
    } catch (error) {
      fail(error);
    }
  }

  fill(
    page,
    h(
      "div",
      { class: "head" },
      h(
        "div",
        { class: "title" },
        h("a", { class: "crumb", href: "#/" }, icon("back"), "Cameras"),
        h("div", { class: "title-row" }, h("h1", {}, name), pill),
        words,
      ),
      h(
        "div",
        { class: "tools" },
        h("a", { class: "button", href: `#/camera/${encodeURIComponent(name)}/edit` }, icon("edit"), "Edit"),
        power,
        button("Remove", { icon: "bin", kind: "danger", text: false, onclick: removeCamera }),
      ),
    ),
    h(
      "div",
      { class: "camera" },
      h(
        "div",
        { class: "camera-main" },
        h(
          "section",
          { class: "panel picture-panel", "aria-label": "Live picture" },
          viewer.element,
          h(
            "div",
            { class: "picture-bar" },
            viewer.views,
            draw,
            h("span", { class: "grow" }),
            viewer.zoom.button,
            h(
              "a",
              {
                class: "button slim plain may-hide",
                href: `${path}/snapshot.jpg`,
                download: `${name}.jpg`,
                "aria-label": "Save a snapshot",
              },
              icon("picture"),
              h("span", {}, "Snapshot"),
            ),
            full,
          ),
          regions.bar,
        ),
        level,
        h(
          "section",
          { class: "panel plot-panel", "aria-labelledby": "plot-title" },
          h("div", { class: "panel-head" }, h("h2", { id: "plot-title" }, "Delay and load, last hour")),
          h("div", { class: "panel-body" }, plot.element),
        ),
        h(
          "div",
          { class: "camera-pair" },
          segments.element,
          h(
            "section",
            { class: "panel", "aria-labelledby": "happened-title" },
            h(
              "div",
              { class: "panel-head" },
              h("h2", { id: "happened-title" }, "Events"),
              h("a", { class: "small", href: `#/events?camera=${encodeURIComponent(name)}` }, "All events"),
            ),
            happened,
          ),
        ),
      ),
      h(
        "aside",
        { class: "camera-side", "aria-label": "Figures and controls" },
        figures,
        controls.element,
        h(
          "section",
          { class: "panel sinks-panel", "aria-labelledby": "sinks-title" },
          h("div", { class: "panel-head" }, h("h2", { id: "sinks-title" }, "Outputs")),
          sinks,
        ),
        h(
          "section",
          { class: "panel facts-panel", "aria-labelledby": "facts-title" },
          h("div", { class: "panel-head" }, h("h2", { id: "facts-title" }, "Details")),
          h("div", { class: "panel-body" }, facts),
        ),
      ),
    ),
  );

  function update(event) {
    const one = store.cameras.get(name);
    if (!one || (event?.detail && event.detail !== name)) return;
    const state = shownState(one);
    pill.className = `pill ${state === "idle" ? "" : one.tone}`;
    fill(pill, h("span", { class: "dot" }), capital(state));
    write(words, one.words === one.state ? "" : capital(one.words));
    words.hidden = !words.textContent;
    write(power.lastChild, one.enabled ? "Switch off" : "Switch on");
    level.hidden = !(one.level > 0 && one.state === "live");
    if (!level.hidden) fill(level, icon("alert"), h("span", {}, `To keep the delay low: ${one.level_words}`));
    viewer.update(one);
    controls.update(one);
    regions.set(one.include, one.exclude);
    const live = one.state === "live" && one.enabled;
    showFigures(figures, one, live);
    showFacts(facts, one);
    showSinks(sinks, one.sinks ?? [], one.to ?? []);
  }

  function showEvents(event) {
    if (event?.detail?.camera && event.detail.camera !== name) return;
    const own = store.events.filter((each) => each.camera === name).slice(0, EVENTS_SHOWN);
    if (own.length > 0) fill(happened, eventDays(own, { withCamera: false }));
    else fill(happened, h("p", { class: "panel-note soft" }, "Nothing has happened yet."));
  }

  async function showHistory() {
    if (document.hidden) return;
    const answer = await get(`${path}/history`).catch(() => null);
    if (answer) plot.set(answer);
  }

  store.addEventListener("cameras", update);
  store.addEventListener("events", showEvents);
  update();
  showEvents();
  showHistory();
  store.loadEvents().catch(fail);
  const timer = setInterval(showHistory, HISTORY_MS);
  return () => {
    clearInterval(timer);
    store.removeEventListener("cameras", update);
    store.removeEventListener("events", showEvents);
    viewer.stop();
    plot.stop();
    segments.stop();
  };
}

/** The present treatment of faces, in words. */
function treatment(one) {
  if (one.passing) return "passed through";
  if (one.idle) return "no motion";
  return one.level > 0 ? one.level_words : "restored";
}

function showFigures(holder, one, live) {
  const own = [
    ["Delay", live ? milliseconds(one.delay?.median_ms) : "–", live ? `p95 ${milliseconds(one.delay?.p95_ms)}` : ""],
    ["Frames", live ? `${fps(one.fps_out)} fps` : "–", live ? `of ${fps(one.fps_in)} coming in` : ""],
    ["Faces", live ? number(one.faces) : "–", live ? treatment(one) : ""],
    ["Load", live ? percent(one.load) : "–", live ? `${number(one.cpu_cores, 1)} cores` : ""],
  ];
  // Written in place: a list that is rebuilt each second cannot be read out or selected.
  if (holder.children.length === 0) {
    fill(
      holder,
      own.map(([label]) => {
        const more = h("dd", { class: "small faint" });
        return h("div", { class: "figure" }, h("dt", {}, label), h("dd"), more);
      }),
    );
  }
  own.forEach(([, value, more], n) => {
    write(holder.children[n].children[1], value);
    write(holder.children[n].children[2], more);
  });
}

function showFacts(holder, one) {
  const drops = Object.entries(one.drops ?? {}).filter(([, count]) => count > 0);
  const rows = [
    ["Source", one.source],
    ["Picture", one.size && [one.size.join(" × "), one.codec].filter(Boolean).join(", ")],
    ["Priority", one.priority && `${one.priority} of 10`],
    ["Schedule", one.schedule?.length ? one.schedule.join("; ") : "always"],
    ["Node", one.node],
    ["Running for", Number.isFinite(one.uptime_s) && duration(one.uptime_s)],
    ["Connections", Number.isFinite(one.connections) && number(one.connections)],
    ["Engine", one.engine],
    ["Memory", Number.isFinite(one.memory_mb) && `${number(one.memory_mb)} MB`],
    ["Faces restored", Number.isFinite(one.faces_restored) && number(one.faces_restored)],
    ["Faces propagated", Number.isFinite(one.faces_carried) && number(one.faces_carried)],
    ...Object.entries(one.stage_ms ?? {}).map(([stage, ms]) => [`Time to ${stage}`, `${number(ms, 1)} ms`]),
    ["Damaged packets", one.corrupt_packets > 0 && number(one.corrupt_packets)],
    ["Dropped", drops.length === 0 ? "none" : plural(one.dropped, "frame")],
    ...drops.map(([cause, count]) => [capital(dropCause(cause)), number(count)]),
    ...(one.notes ?? []).map((note) => ["Note", note]),
  ].filter(([, value]) => value);
  const key = JSON.stringify(rows.map(([label]) => label));
  if (holder.dataset.rows !== key) {
    holder.dataset.rows = key;
    fill(
      holder,
      rows.map(([label]) => [h("dt", {}, label), h("dd")]),
    );
  }
  rows.forEach(([, value], n) => write(holder.children[2 * n + 1], String(value)));
}

function showSinks(holder, sinks, targets) {
  const tones = { live: "good", connecting: "warn", retrying: "warn", stalled: "warn", stopped: "" };
  const rows = sinks.map((sink) =>
    h(
      "li",
      { class: "row" },
      h(
        "div",
        { class: "row-main" },
        h("div", { class: "wrap" }, sink.name ?? sink.kind),
        h(
          "div",
          { class: "small faint wrap" },
          [
            sink.words && sink.words !== sink.state && sink.words,
            Number.isFinite(sink.delay?.median_ms) && milliseconds(sink.delay.median_ms),
            sink.dropped > 0 && `${number(sink.dropped)} dropped`,
          ]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
      h("span", { class: `pill ${tones[sink.state] ?? "bad"}` }, h("span", { class: "dot" }), capital(sink.state)),
    ),
  );
  if (rows.length > 0) fill(holder, h("ul", { class: "rows" }, rows));
  else if (targets.length > 0) {
    fill(holder, h("ul", { class: "rows" }, targets.map((to) => h("li", { class: "row wrap" }, to))));
  } else fill(holder, h("p", { class: "panel-note soft" }, "None: the picture is shown on these pages only."));
}

// All events, or those of one camera or of one kind.

import { button, empty, fill, h, icon } from "../dom.js";
import { eventDays } from "../eventlist.js";
import { fail } from "../notices.js";
import { store } from "../store.js";
import { eventKind, eventKinds, plural } from "../words.js";

const PAGE = 100;

export function eventsPage(page, { setTitle, query }) {
  setTitle("Events");
  let loaded = false;
  let most = PAGE;
  let error = null;
  let camera = query.get("camera") ?? "";
  let kind = query.get("kind") ?? "";
  const cameras = h("select", { "aria-label": "Camera", onchange: choose });
  const kinds = h(
    "select",
    { "aria-label": "Kind of event", onchange: choose },
    h("option", { value: "" }, "All kinds"),
    eventKinds.map((key) => h("option", { value: key }, eventKind(key)[0])),
  );
  kinds.value = kind;
  const count = h("p", { class: "soft small" });
  const holder = h("section", { class: "panel events-panel", "aria-label": "Events" });
  fill(
    page,
    h("div", { class: "head" }, h("div", { class: "title" }, h("h1", {}, "Events"), count)),
    h("div", { class: "filters" }, cameras, kinds),
    holder,
  );
  page.classList.add("narrow");

  const older = h(
    "div",
    { class: "more" },
    button("Show older events", {
      kind: "slim plain",
      onclick: () => {
        most += PAGE;
        show();
      },
    }),
  );

  function choose() {
    camera = cameras.value;
    kind = kinds.value;
    const query = new URLSearchParams(Object.entries({ camera, kind }).filter(([, value]) => value));
    history.replaceState(null, "", `#/events${query.size ? `?${query}` : ""}`);
    show();
  }

  function showCameras() {
    const names = new Set([...store.cameras.keys(), ...store.events.map((event) => event.camera)]);
    names.add(camera);
    names.delete("");
    const sorted = [...names].filter(Boolean).sort((a, b) => a.localeCompare(b));
    const key = sorted.join("\n");
    if (cameras.dataset.names === key) return;
    cameras.dataset.names = key;
    fill(
      cameras,
      h("option", { value: "" }, "All cameras"),
      sorted.map((name) => h("option", { value: name }, name)),
    );
    cameras.value = camera;
  }

  function show() {
    showCameras();
    const events = store.events.filter(
      (event) => (!camera || event.camera === camera) && (!kind || event.kind === kind),
    );
    count.textContent = loaded ? plural(events.length, "event") : "";
    if (error && events.length === 0) fill(holder, empty("broken", "The events cannot be shown", error.message));
    else if (events.length > 0) fill(holder, eventDays(events.slice(0, most)), events.length > most && older);
    else if (!loaded) fill(holder, h("p", { class: "panel-note soft" }, icon("events"), "Loading"));
    else if (camera || kind) fill(holder, empty("search", "No such event", "Choose another camera or kind."));
    else {
      fill(
        holder,
        empty(
          "events",
          "Nothing has happened yet",
          "Faces seen, cameras that come and go, and full disks are listed here.",
        ),
      );
    }
  }

  store.addEventListener("events", show);
  store.addEventListener("cameras", showCameras);
  show();
  store
    .loadEvents()
    .catch((reason) => {
      error = reason;
      fail(reason);
    })
    .finally(() => {
      loaded = true;
      show();
    });
  return () => {
    store.removeEventListener("events", show);
    store.removeEventListener("cameras", showCameras);
  };
}

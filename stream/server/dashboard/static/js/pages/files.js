// Files: uploaded or picked from the server's folder, and the queue of jobs that restore them.

import { get, post, remove, upload } from "../api.js";
import { choices, fillSelect } from "../controls.js";
import { button, empty, fill, h, icon, slide, write } from "../dom.js";
import { confirm, fail, say } from "../notices.js";
import { store } from "../store.js";
import { bytes, day, duration, percent, plural } from "../words.js";

const STATES = {
  queued: ["Waiting", ""],
  running: ["Running", "busy"],
  done: ["Done", "good"],
  failed: ["Failed", "bad"],
  cancelled: ["Cancelled", ""],
};
const ENDED = new Set(["done", "failed", "cancelled"]);
/** Uploads at a time: a browser has few connections to one server, and the page needs some itself. */
const UPLOADS = 2;

export const jobTitle = (job) => job.file;

export function filesPage(page, { setTitle }) {
  setTitle("Files");
  const rows = new Map();
  const chosen = new Set();
  const unsent = [];
  let sent = 0;
  let files = null;

  const picker = h("input", {
    type: "file",
    class: "unseen",
    id: "picker",
    accept: "video/*,image/*,.mkv,.ts",
    multiple: true,
    tabindex: "-1",
    "aria-hidden": "true",
    onchange: () => {
      uploadAll(picker.files);
      picker.value = "";
    },
  });
  const zone = h(
    "div",
    { class: "drop" },
    icon("up"),
    h("p", {}, h("strong", {}, "Drop videos or pictures here")),
    h("p", { class: "small faint" }, "They go to the server's folder and nowhere else."),
    button("Choose files", { onclick: () => picker.click() }),
    picker,
  );
  const sending = h("ul", { class: "rows" });
  const folder = h("div", { class: "folder" });
  const folderCount = h("span", { class: "small faint" });
  const preset = h("select", { id: "job-preset" });
  const model = h("select", { id: "job-model" });
  const strength = h("input", { type: "range", id: "job-strength", min: 0, max: 100, step: 1, value: 100 });
  const strengthText = h("output", { for: "job-strength" }, "100 %");
  strength.oninput = () => {
    slide(strength);
    write(strengthText, percent(Number(strength.value) / 100));
  };
  slide(strength);
  const start = button("Restore", { icon: "play", kind: "primary", disabled: true, onclick: begin });
  const selected = h("p", { class: "small soft clip" }, "Choose files from the folder.");
  const every = h("input", { type: "checkbox", id: "every-file", onchange: () => pickAll(every.checked) });
  const everyLabel = h("label", { class: "folder-file folder-all", for: "every-file" }, every, h("span", {}, "All files"));
  const queue = h("ul", { class: "rows jobs" });
  const queueHolder = h("div");
  const queueCount = h("span", { class: "small faint" });
  const news = h("div", { class: "unseen", "aria-live": "polite" });

  fill(
    page,
    h(
      "div",
      { class: "head" },
      h(
        "div",
        { class: "title" },
        h("h1", {}, "Files"),
        h("p", { class: "soft small" }, "Restore faces in recordings"),
      ),
    ),
    h(
      "div",
      { class: "files" },
      h(
        "section",
        { class: "panel", "aria-labelledby": "new-title" },
        h("div", { class: "panel-head" }, h("h2", { id: "new-title" }, "Choose files"), folderCount),
        h("div", { class: "panel-body" }, zone, sending, folder),
        h(
          "div",
          { class: "panel-foot" },
          selected,
          h(
            "div",
            { class: "job-settings" },
            h("div", { class: "field" }, h("label", { for: "job-preset" }, "Preset"), preset),
            h("div", { class: "field" }, h("label", { for: "job-model" }, "Model"), model),
            h(
              "div",
              { class: "field" },
              h("div", { class: "field-line" }, h("label", { for: "job-strength" }, "Strength"), strengthText),
              strength,
            ),
            start,
          ),
        ),
      ),
      h(
        "section",
        { class: "panel", "aria-labelledby": "queue-title" },
        h("div", { class: "panel-head" }, h("h2", { id: "queue-title" }, "Queue and results"), queueCount),
        queueHolder,
        news,
      ),
    ),
  );

  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    uploadAll(event.dataTransfer.files);
  });

  function uploadAll(list) {
    for (const file of list) {
      const bar = h("span");
      const text = h("div", { class: "small faint" }, "Waiting");
      const one = { file, bar, text, cancel: null };
      one.row = h(
        "li",
        { class: "row" },
        h("div", { class: "row-main" }, h("div", { class: "clip" }, file.name), h("div", { class: "bar" }, bar), text),
        button(`Cancel the upload of ${file.name}`, {
          icon: "close",
          kind: "plain slim",
          text: false,
          onclick: () => (one.cancel ? one.cancel() : dropUnsent(one)),
        }),
      );
      bar.style.transform = "scaleX(0)";
      sending.append(one.row);
      unsent.push(one);
    }
    while (sent < UPLOADS && unsent.length > 0) send(unsent.shift());
  }

  function dropUnsent(one) {
    unsent.splice(unsent.indexOf(one), 1);
    one.row.remove();
  }

  async function send(one) {
    const { file, bar, text } = one;
    sent += 1;
    const { answer, cancel } = upload("/api/files", file, (part) => {
      bar.style.transform = `scaleX(${part})`;
      write(text, part < 1 ? `${percent(part)} of ${bytes(file.size)}` : "Being stored");
    });
    one.cancel = cancel;
    try {
      const stored = await answer;
      chosen.add(stored.name);
      await loadFiles();
      say(`${file.name} is on the server`);
    } catch (error) {
      fail(error);
    }
    one.row.remove();
    sent -= 1;
    if (unsent.length > 0) send(unsent.shift());
  }

  async function loadFiles() {
    try {
      const answer = await get("/api/files");
      files = answer;
      showFiles();
    } catch (error) {
      fill(folder, h("p", { class: "wrong" }, error.message));
    }
  }

  function showFiles() {
    write(folderCount, files.length ? `${plural(files.length, "file")} in the server's folder` : "");
    for (const name of chosen) if (!files.some((file) => file.name === name)) chosen.delete(name);
    if (files.length === 0) {
      fill(folder, h("p", { class: "small faint" }, "The server's folder is empty."));
    } else {
      fill(
        folder,
        h(
          "fieldset",
          {},
          h("legend", { class: "unseen" }, "Files in the server's folder"),
          h("div", { class: "folder-list" }, files.length > 1 && everyLabel, files.map(folderRow)),
        ),
      );
    }
    showChoice();
  }

  function folderRow(file) {
    return h(
      "label",
      { class: "folder-file" },
      h("input", {
        type: "checkbox",
        name: "file",
        value: file.name,
        onchange: (event) => {
          if (event.target.checked) chosen.add(file.name);
          else chosen.delete(file.name);
          showChoice();
        },
      }),
      h("span", { class: "clip", title: file.name }, file.name),
      h("span", { class: "small faint" }, bytes(file.bytes)),
    );
  }

  function pickAll(wanted) {
    for (const file of files) {
      if (wanted) chosen.add(file.name);
      else chosen.delete(file.name);
    }
    showChoice();
  }

  function showChoice() {
    for (const input of folder.querySelectorAll("[name=file]")) input.checked = chosen.has(input.value);
    every.checked = chosen.size > 0 && chosen.size === files.length;
    every.indeterminate = chosen.size > 0 && !every.checked;
    start.disabled = chosen.size === 0;
    write(start.querySelector("span"), chosen.size > 1 ? `Restore ${plural(chosen.size, "file")}` : "Restore");
    const names = [...chosen].join(", ");
    write(selected, names || "Choose files from the folder.");
    selected.title = names;
  }

  /** Queues the chosen files, in the order of the list; those that are refused stay chosen. */
  async function begin() {
    start.disabled = true;
    const names = files.map((file) => file.name).filter((name) => chosen.has(name));
    const queued = [];
    try {
      for (const name of names) {
        const job = await post("/api/jobs", {
          file: name,
          preset: preset.value || null,
          model: model.value || null,
          strength: Number(strength.value) / 100,
        });
        chosen.delete(name);
        queued.push(name);
        // An update may have come before this answer; it is newer.
        if (job?.id !== undefined && !store.jobs.has(job.id)) store.jobs.set(job.id, job);
      }
    } catch (error) {
      fail(error);
    }
    showJobs();
    showChoice();
    if (queued.length === 1) write(news, `${queued[0]} is in the queue`);
    else if (queued.length > 1) write(news, `${queued.length} files are in the queue`);
  }

  function showJobs() {
    const jobs = inOrder([...store.jobs.values()]);
    const count = (state) => jobs.filter((job) => job.state === state).length;
    const [running, waiting] = [count("running"), count("queued")];
    write(queueCount, [running && `${running} running`, waiting && `${waiting} waiting`].filter(Boolean).join(", "));
    for (const [id, row] of rows) {
      if (store.jobs.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    for (const job of jobs) {
      if (!rows.has(job.id)) rows.set(job.id, new JobRow(job, (text) => write(news, text)));
      if (rows.get(job.id).update(job, waiting)) write(news, `${jobTitle(job)}: ${stateTitle(job)}`);
    }
    const focused = document.activeElement;
    jobs.forEach((job, n) => {
      const { element } = rows.get(job.id);
      if (queue.children[n] !== element) queue.insertBefore(element, queue.children[n] ?? null);
    });
    // An element that is moved in the page loses the focus.
    if (focused !== document.activeElement && queue.contains(focused)) focused.focus();
    if (jobs.length > 0) {
      if (queueHolder.firstChild !== queue) fill(queueHolder, queue);
    } else {
      fill(queueHolder, empty("files", "Nothing in the queue", "Choose files and start; results stay listed here."));
    }
  }

  store.addEventListener("jobs", showJobs);
  showJobs();
  loadFiles();
  store.loadJobs().catch(fail);
  choices().then(({ models, presets }) => {
    const names = presets.map((one) => one.name ?? one);
    fillSelect(preset, presets, names.includes("default") ? "default" : names[0]);
    fillSelect(model, [{ name: "", title: "From the preset" }, ...models], "");
  }, fail);
  const timer = setInterval(() => store.link !== "online" && store.loadJobs().catch(() => {}), 3000);
  return () => {
    clearInterval(timer);
    store.removeEventListener("jobs", showJobs);
  };
}

/** What runs, what waits in its order, then what has ended, the newest first. */
function inOrder(jobs) {
  const group = (job) => (job.state === "running" ? 0 : job.state === "queued" ? 1 : 2);
  const place = new Map(jobs.map((job, n) => [job, n]));
  return jobs.sort((a, b) => {
    if (group(a) !== group(b)) return group(a) - group(b);
    if (group(a) === 1) return (a.place ?? Infinity) - (b.place ?? Infinity) || place.get(a) - place.get(b);
    if (group(a) === 2) return (b.ended_at ?? 0) - (a.ended_at ?? 0) || place.get(b) - place.get(a);
    return place.get(a) - place.get(b);
  });
}

const stateTitle = (job) =>
  job.state === "running" && job.continuing ? "Continuing" : (STATES[job.state]?.[0] ?? job.state);

class JobRow {
  constructor(job, announce) {
    this.id = job.id;
    this.announce = announce;
    this.bar = h("span");
    this.track = h("div", {
      class: "bar",
      role: "progressbar",
      "aria-label": `Progress of ${jobTitle(job)}`,
      "aria-valuemin": "0",
      "aria-valuemax": "100",
    });
    this.track.append(this.bar);
    this.pill = h("span", { class: "pill" });
    this.text = h("div", { class: "small faint wrap" });
    this.tools = h("div", { class: "row-tools" });
    this.element = h(
      "li",
      { class: "row job" },
      h(
        "div",
        { class: "row-main" },
        h("div", { class: "job-line" }, h("span", { class: "clip", title: jobTitle(job) }, jobTitle(job)), this.pill),
        this.track,
        this.text,
      ),
      this.tools,
    );
  }

  /** Shows a job's status, with how many wait; returns whether its state has changed. */
  update(job, waiting) {
    const changed = this.state !== undefined && this.state !== job.state;
    const tone = STATES[job.state]?.[1] ?? "warn";
    this.job = job;
    this.pill.className = `pill ${tone}`;
    fill(this.pill, h("span", { class: "dot" }), stateTitle(job));
    const part = job.progress ?? 0;
    this.track.hidden = job.state !== "running";
    this.bar.style.transform = `scaleX(${part})`;
    this.track.setAttribute("aria-valuenow", String(Math.round(part * 100)));
    write(this.text, jobWords(job));
    this.text.classList.toggle("wrong", job.state === "failed");
    if (this.state !== job.state) this.#showTools(job);
    this.state = job.state;
    this.#showMoves(job, waiting);
    return changed;
  }

  /** Which moves are possible. A button that cannot be used any more hands the focus to the next. */
  #showMoves(job, waiting) {
    if (job.state !== "queued") return;
    const [first, up, down] = this.moves;
    const focused = this.moves.includes(document.activeElement);
    for (const one of this.moves) one.hidden = waiting < 2;
    first.disabled = up.disabled = job.place === 1;
    down.disabled = job.place === waiting;
    if (focused && document.activeElement?.disabled) this.moves.find((one) => !one.disabled)?.focus();
  }

  async #move(place) {
    const name = jobTitle(this.job);
    try {
      const job = await post(`/api/jobs/${encodeURIComponent(this.id)}/move`, { place });
      await store.loadJobs();
      this.announce(job.place === 1 ? `${name} is next` : `${name} is at place ${job.place}`);
    } catch (error) {
      fail(error);
    }
  }

  #moveButtons(name) {
    const one = (label, drawing, place) =>
      button(label, { icon: drawing, kind: "slim plain", text: false, onclick: () => this.#move(place()) });
    this.moves = [
      one(`Move ${name} to the top`, "top", () => 1),
      one(`Move ${name} up`, "raise", () => this.job.place - 1),
      one(`Move ${name} down`, "lower", () => this.job.place + 1),
    ];
    return this.moves;
  }

  #showTools(job) {
    const name = jobTitle(job);
    const path = `/api/jobs/${encodeURIComponent(job.id)}`;
    const end = async () => {
      const done = job.state === "done";
      const text = `The restored version of ${name} is deleted from the server. The original stays.`;
      if (done && !(await confirm("Remove this result?", text, "Remove"))) return;
      try {
        await remove(path);
        await store.loadJobs();
      } catch (error) {
        fail(error);
      }
    };
    const again = async () => {
      try {
        await post(`${path}/retry`);
        await store.loadJobs();
      } catch (error) {
        fail(error);
      }
    };
    fill(
      this.tools,
      job.state === "queued" && this.#moveButtons(name),
      job.state === "done" && [
        h("a", { class: "button slim", href: `#/files/${encodeURIComponent(job.id)}` }, "Compare"),
        h(
          "a",
          {
            class: "button slim square plain",
            href: `${path}/output?download=1`,
            download: "",
            title: "Download",
            "aria-label": `Download ${name}`,
          },
          icon("down"),
        ),
      ],
      (job.state === "failed" || job.state === "cancelled") &&
        button("Try again", { kind: "slim", onclick: again, "aria-label": `Try ${name} again` }),
      ENDED.has(job.state)
        ? button(`Remove ${name}`, { icon: "bin", kind: "slim plain", text: false, onclick: end })
        : button("Cancel", { kind: "slim", onclick: end, "aria-label": `Cancel ${name}` }),
    );
  }
}

function jobWords(job) {
  const settings = [job.preset, job.model, Number.isFinite(job.strength) && percent(job.strength)];
  const left = job.left_s;
  if (job.state === "failed") return job.error;
  if (job.state === "running") {
    const parts = [percent(job.progress ?? 0), Number.isFinite(left) ? `${duration(left)} left` : "time left unknown"];
    if (job.segments_total > 0) parts.push(`${job.segments_done} of ${plural(job.segments_total, "segment")}`);
    if (job.workers > 1) parts.push(plural(job.workers, "worker"));
    if (Number.isFinite(job.fps)) parts.push(`${Math.round(job.fps * 10) / 10} fps`);
    if (job.note) parts.push(job.note);
    return parts.join(" · ");
  }
  if (job.state === "queued" && job.continuing) settings.unshift("continues where it ended");
  if (job.state === "cancelled" && job.segments_done > 0) {
    settings.unshift(`${job.segments_done} of ${plural(job.segments_total, "segment")} kept`);
  }
  if (job.state === "done") {
    settings.push(Number.isFinite(job.seconds) && `took ${duration(job.seconds)}`, job.ended_at && day(job.ended_at));
  }
  return settings.filter(Boolean).join(" · ");
}

// Files: uploaded or picked from the server's folder, restored one after another.

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

export const jobTitle = (job) => job.file;

export function filesPage(page, { setTitle }) {
  setTitle("Files");
  const uploads = new Map();
  const rows = new Map();
  let files = null;
  let chosen = null;

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
  const selected = h("p", { class: "small soft clip" }, "Choose a file from the folder.");
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
        h("div", { class: "panel-head" }, h("h2", { id: "new-title" }, "Choose a file"), folderCount),
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

  async function uploadAll(list) {
    for (const file of list) {
      const bar = h("span");
      const text = h("div", { class: "small faint" }, "Waiting");
      const { answer, cancel } = upload("/api/files", file, (part) => {
        bar.style.transform = `scaleX(${part})`;
        write(text, part < 1 ? `${percent(part)} of ${bytes(file.size)}` : "Being stored");
      });
      const row = h(
        "li",
        { class: "row" },
        h("div", { class: "row-main" }, h("div", { class: "clip" }, file.name), h("div", { class: "bar" }, bar), text),
        button(`Cancel the upload of ${file.name}`, {
          icon: "close",
          kind: "plain slim",
          text: false,
          onclick: cancel,
        }),
      );
      bar.style.transform = "scaleX(0)";
      sending.append(row);
      uploads.set(file, row);
      answer
        .then(async (stored) => {
          await loadFiles();
          pick(stored.name);
          say(`${file.name} is on the server`);
        }, fail)
        .finally(() => {
          row.remove();
          uploads.delete(file);
        });
    }
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
    if (files.length === 0) {
      fill(folder, h("p", { class: "small faint" }, "The server's folder is empty."));
      return;
    }
    fill(
      folder,
      h(
        "fieldset",
        {},
        h("legend", { class: "unseen" }, "Files in the server's folder"),
        h(
          "div",
          { class: "folder-list" },
          files.map((file) =>
            h(
              "label",
              { class: "folder-file" },
              h("input", {
                type: "radio",
                name: "file",
                checked: file.name === chosen,
                onchange: () => pick(file.name),
                value: file.name,
              }),
              h("span", { class: "clip", title: file.name }, file.name),
              h("span", { class: "small faint" }, bytes(file.bytes)),
            ),
          ),
        ),
      ),
    );
  }

  function pick(name) {
    chosen = files?.some((file) => file.name === name) ? name : null;
    start.disabled = !chosen;
    write(selected, chosen ?? "Choose a file from the folder.");
    for (const input of folder.querySelectorAll("input")) input.checked = input.value === chosen;
  }

  async function begin() {
    start.disabled = true;
    try {
      const job = await post("/api/jobs", {
        file: chosen,
        preset: preset.value || null,
        model: model.value || null,
        strength: Number(strength.value) / 100,
      });
      // An update may have come before this answer; it is newer.
      if (job?.id !== undefined && !store.jobs.has(job.id)) store.jobs.set(job.id, job);
      showJobs();
      write(news, `${chosen} is in the queue`);
    } catch (error) {
      fail(error);
    }
    start.disabled = !chosen;
  }

  function showJobs() {
    const jobs = [...store.jobs.values()].reverse();
    const running = jobs.filter((job) => !ENDED.has(job.state)).length;
    write(queueCount, running ? `${running} to do` : "");
    for (const [id, row] of rows) {
      if (store.jobs.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    jobs.forEach((job, n) => {
      if (!rows.has(job.id)) rows.set(job.id, new JobRow(job));
      const row = rows.get(job.id);
      if (row.update(job)) write(news, `${jobTitle(job)}: ${STATES[job.state]?.[0] ?? job.state}`);
      if (queue.children[n] !== row.element) queue.insertBefore(row.element, queue.children[n] ?? null);
    });
    if (jobs.length > 0) {
      if (queueHolder.firstChild !== queue) fill(queueHolder, queue);
    } else {
      fill(queueHolder, empty("files", "Nothing in the queue", "Choose a file and start; results stay listed here."));
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

class JobRow {
  constructor(job) {
    this.id = job.id;
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

  /** Shows a job's status; returns whether its state has changed. */
  update(job) {
    const changed = this.state !== undefined && this.state !== job.state;
    const [title, tone] = STATES[job.state] ?? [job.state, "warn"];
    this.pill.className = `pill ${tone}`;
    fill(this.pill, h("span", { class: "dot" }), title);
    const part = job.progress ?? 0;
    this.track.hidden = job.state !== "running";
    this.bar.style.transform = `scaleX(${part})`;
    this.track.setAttribute("aria-valuenow", String(Math.round(part * 100)));
    write(this.text, jobWords(job));
    this.text.classList.toggle("wrong", job.state === "failed");
    if (this.state !== job.state) this.#showTools(job);
    this.state = job.state;
    return changed;
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
    fill(
      this.tools,
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
    if (Number.isFinite(job.fps)) parts.push(`${Math.round(job.fps * 10) / 10} fps`);
    return parts.join(" · ");
  }
  if (job.state === "done") {
    settings.push(Number.isFinite(job.seconds) && `took ${duration(job.seconds)}`, job.ended_at && day(job.ended_at));
  }
  return settings.filter(Boolean).join(" · ");
}

// One result: before and after, played together.

import { button, empty, fill, h, icon } from "../dom.js";
import { fail } from "../notices.js";
import { Player, Stills } from "../player.js";
import { store } from "../store.js";
import { number, percent } from "../words.js";
import { jobTitle } from "./files.js";

const PICTURES = /\.(png|jpe?g|webp|bmp|tiff?)$/i;

export function jobPage(page, { setTitle, name }) {
  let player = null;
  setTitle("Result");
  fill(page, h("div", { class: "bone bone-head" }), h("div", { class: "bone bone-picture" }));

  function show() {
    const job = [...store.jobs.values()].find((one) => String(one.id) === name);
    if (player) return;
    const back = h("a", { class: "button", href: "#/files" }, "To the files");
    if (!job) fill(page, empty("files", "There is no such result", "It may have been removed.", back));
    else if (job.state !== "done") fill(page, empty("sleep", "Not done yet", jobTitle(job), back));
    else build(job);
  }

  function build(job) {
    const title = jobTitle(job);
    const path = `/api/jobs/${encodeURIComponent(job.id)}`;
    setTitle(title);
    const rate = job.frame_rate;
    player = PICTURES.test(title)
      ? new Stills(`${path}/input`, `${path}/output`)
      : new Player(`${path}/input`, `${path}/output`, { frameSeconds: rate > 0 ? 1 / rate : 0.04 });
    const facts = [
      job.preset && ["Preset", job.preset],
      job.model && ["Model", job.model],
      Number.isFinite(job.strength) && ["Strength", percent(job.strength)],
      Number.isFinite(job.frames) && ["Frames", number(job.frames)],
      Number.isFinite(job.faces) && ["Faces restored", number(job.faces)],
    ].filter(Boolean);
    fill(
      page,
      h(
        "div",
        { class: "head" },
        h(
          "div",
          { class: "title" },
          h("a", { class: "crumb", href: "#/files" }, icon("back"), "Files"),
          h("h1", {}, title),
          h("p", { class: "soft small" }, facts.map(([label, value]) => `${label}: ${value}`).join(" · ")),
        ),
        h(
          "div",
          { class: "tools" },
          h(
            "a",
            { class: "button primary", href: `${path}/output?download=1`, download: "" },
            icon("down"),
            "Download",
          ),
        ),
      ),
      h("section", { class: "panel", "aria-label": "Before and after" }, player.element),
    );
  }

  store.addEventListener("jobs", show);
  store.loadJobs().then(show, (error) => {
    fail(error);
    const again = button("Try again", { onclick: () => location.reload() });
    fill(page, empty("broken", "The result cannot be shown", error.message, again));
  });
  return () => {
    store.removeEventListener("jobs", show);
    player?.stop();
  };
}

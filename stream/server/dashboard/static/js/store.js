// The state of the server: cameras, jobs and events, updated by Server-Sent Events.

import { get, toLogin } from "./api.js";

const MOST_EVENTS = 500;
const REFRESH_MS = 15000;
const NODES_MS = 3000;
const TONES = {
  live: "good",
  connecting: "busy",
  starting: "busy",
  stalled: "warn",
  retrying: "warn",
  restarting: "warn",
  refused: "bad",
  unauthorised: "bad",
  failing: "bad",
  paused: "",
  stopped: "",
};
/** States of a camera whose process has nothing to report. */
const PROCESS = {
  waiting: "starting",
  starting: "starting",
  running: "connecting",
  restarting: "restarting",
  broken: "failing",
  paused: "paused",
};

/** The number of 0.25, "0.25" or "1/4", since settings may contain fractions. */
function part(value) {
  const [above, below = 1] = String(value).split("/").map(Number);
  return above / below;
}

const numbers = (boxes = []) => boxes.map((box) => box.map(part));

/** One camera: settings and report in one value, with a state that is always set. */
export function camera(raw) {
  const settings = {
    ...raw.settings,
    include: numbers(raw.settings?.include),
    exclude: numbers(raw.settings?.exclude),
  };
  const report = raw.report ?? {};
  const all = { ...settings, ...raw, ...report, settings, raw };
  const enabled = settings.enabled ?? true;
  const state = enabled ? (report.state ?? PROCESS[raw.process] ?? "stopped") : "stopped";
  const dropped = Object.values(report.drops ?? {}).reduce((sum, count) => sum + count, 0);
  const words = enabled ? (report.words ?? raw.words ?? state) : "switched off";
  return { ...all, enabled, state, tone: TONES[state] ?? "warn", dropped, words };
}

/** Whether a camera needs attention. */
export const troubled = (one) => one.tone === "warn" || one.tone === "bad";

/** The state to show: a live picture without motion is "idle". */
export function shownState(one) {
  if (!one.enabled) return "off";
  if (one.state === "live" && one.idle) return "idle";
  return one.state;
}

class Store extends EventTarget {
  cameras = new Map();
  jobs = new Map();
  events = [];
  /** The machines of a cluster; none if the server runs all cameras itself. */
  nodes = [];
  server = null;
  /** "connecting", "online" or "offline". */
  link = "connecting";
  loaded = false;
  error = null;
  #source = null;

  /** Starts the updates; pages may be shown before the first data arrive. */
  async start() {
    this.#listen();
    await this.refresh();
    setInterval(() => this.link !== "online" && this.refresh(), 3000);
    setInterval(() => this.refresh(), REFRESH_MS);
    setInterval(() => this.nodes.length > 0 && this.loadNodes().catch(() => {}), NODES_MS);
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  #setLink(link) {
    if (this.link === link) return;
    this.link = link;
    this.tell("link");
  }

  /** Loads everything again: after a start, and after the connection was lost. */
  async refresh() {
    try {
      const [cameras, server] = await Promise.all([
        get("/api/cameras"),
        get("/api/server"),
        this.loadNodes(),
      ]);
      this.cameras = new Map(cameras.map((raw) => [raw.name, camera(raw)]));
      this.server = server;
      this.loaded = true;
      this.error = null;
      if (this.link === "offline") this.#listen();
      this.tell("cameras");
      this.tell("server");
    } catch (error) {
      this.error = error;
      if (error.offline) this.#setLink("offline");
      this.tell("cameras");
    }
  }

  async loadNodes() {
    this.nodes = await get("/api/nodes");
    this.tell("nodes");
  }

  async loadEvents() {
    const answer = await get("/api/events");
    const known = new Map([...answer, ...this.events].map((event) => [event.id, event]));
    this.events = [...known.values()].sort((a, b) => b.id - a.id).slice(0, MOST_EVENTS);
    this.tell("events");
  }

  async loadJobs() {
    const answer = await get("/api/jobs");
    this.jobs = new Map(answer.map((job) => [job.id, job]));
    this.tell("jobs");
  }

  #listen() {
    this.#source?.close();
    const source = new EventSource("/api/events/stream");
    this.#source = source;
    source.onopen = () => {
      this.#setLink("online");
      // Changes before the connection was open have been missed.
      this.refresh();
      this.loadEvents().catch(() => {});
      this.loadJobs().catch(() => {});
    };
    source.onerror = async () => {
      // A refused log-in closes the stream for good; after the loss of the server the browser tries again.
      if (source.readyState === EventSource.CLOSED) {
        const answer = await fetch("/api/server", { cache: "no-store" }).catch(() => null);
        if (answer?.status === 401) toLogin();
      }
      this.#setLink("offline");
    };
    source.addEventListener("camera", (event) => {
      const raw = JSON.parse(event.data);
      if (raw.removed) this.cameras.delete(raw.name);
      else {
        const before = this.cameras.get(raw.name);
        const merged = { ...before?.raw, ...raw };
        this.cameras.set(raw.name, camera(merged));
      }
      this.tell("cameras", raw.name);
    });
    source.addEventListener("event", (event) => {
      const one = JSON.parse(event.data);
      if (this.events.some((known) => known.id === one.id)) return;
      this.events.unshift(one);
      this.events.length = Math.min(this.events.length, MOST_EVENTS);
      this.tell("events", one);
    });
    source.addEventListener("job", (event) => {
      const job = JSON.parse(event.data);
      if (job.removed) this.jobs.delete(job.id);
      else this.jobs.set(job.id, { ...this.jobs.get(job.id), ...job });
      this.tell("jobs", job.id);
    });
    addEventListener("pagehide", () => source.close(), { once: true });
  }
}

export const store = new Store();

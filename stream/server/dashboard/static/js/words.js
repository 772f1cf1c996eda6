// Numbers, times and states as text.

const NONE = "–";

export const number = (value, digits = 0) =>
  Number.isFinite(value)
    ? value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : NONE;

export const fps = (value) => (Number.isFinite(value) ? number(value, value < 10 ? 1 : 0) : NONE);

export function milliseconds(value) {
  if (!Number.isFinite(value)) return NONE;
  return value < 1000 ? `${number(value)} ms` : `${number(value / 1000, 1)} s`;
}

export const percent = (value) => (Number.isFinite(value) ? `${number(value * 100)} %` : NONE);

export function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${number(value, value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

/** A length such as "4 s", "3 min 20 s", "2 h 05 min", "6 d 4 h". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const hours = Math.floor(whole / 3600);
  if (hours < 24) return `${hours} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A Date of seconds since the epoch, of milliseconds, or of ISO text. */
export function date(value) {
  if (typeof value === "number") return new Date(value < 1e11 ? value * 1000 : value);
  return new Date(value);
}

export const clock = (value) =>
  date(value).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function day(value) {
  const then = date(value);
  const today = new Date();
  const yesterday = new Date(today.getTime() - 86400000);
  if (then.toDateString() === today.toDateString()) return "Today";
  if (then.toDateString() === yesterday.toDateString()) return "Yesterday";
  return then.toLocaleDateString("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** Seconds of a player as m:ss or h:mm:ss. */
export function timecode(seconds) {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(whole / 3600);
  return hours > 0 ? `${hours}:${parts.join(":")}` : `${Number(parts[0])}:${parts[1]}`;
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** "retrying in 4 s (refused)" as the title "Retrying in 4 s" and the detail "Refused". */
export function parts(words) {
  const [, head, detail = ""] = words.match(/^([^(]*?)\s*(?:\((.*)\))?$/s) ?? [null, words];
  return [capital(head), capital(detail)];
}

const DROPS = {
  overrun: "replaced by a newer frame",
  late: "over the delay budget",
  paced: "over the highest frame rate",
  no_keyframe: "waiting for a keyframe",
  corrupt: "damaged",
};

export const dropCause = (cause) => DROPS[cause] ?? cause.replaceAll("_", " ");

const EVENTS = {
  face_seen: ["Face seen", ""],
  camera_up: ["Camera up", "good"],
  camera_down: ["Camera down", "bad"],
  source_refused: ["Source refused", "bad"],
  sink_failed: ["Output failed", "bad"],
  disk_low: ["Disk low", "warn"],
  level_changed: ["Restoration level", "warn"],
  camera_restarted: ["Camera restarted", "warn"],
  camera_waits: ["Camera waits", "bad"],
  node_lost: ["Node lost", "bad"],
};

/** Title and tone of an event's kind. */
export const eventKind = (kind) => EVENTS[kind] ?? [capital(String(kind).replaceAll("_", " ")), ""];

export const eventKinds = Object.keys(EVENTS);

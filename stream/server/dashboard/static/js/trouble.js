// The text over a picture that is missing or old.

import { parts } from "./words.js";

const STATE_ICONS = {
  connecting: "cameras",
  retrying: "cameras",
  starting: "cameras",
  paused: "sleep",
  stopped: "sleep",
  unauthorised: "lock",
  refused: "broken",
};

/** Icon, title and detail for one camera; null where its picture is live. */
export function trouble(one, pictured) {
  if (!one.enabled) return ["sleep", "Switched off", ""];
  if (one.state === "live") return pictured ? null : ["picture", "Waiting for a picture", ""];
  return [STATE_ICONS[one.state] ?? "alert", ...parts(one.words)];
}

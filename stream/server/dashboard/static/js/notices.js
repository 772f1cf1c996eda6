// Short messages in a corner, and questions before something is lost.

import { button, h, icon } from "./dom.js";

const SHOWN_MS = 6000;
const MOST = 4;

function show(text, tone, drawing) {
  const list = document.getElementById("notices");
  const notice = h("div", { class: `notice ${tone}` }, icon(drawing), h("p", {}, text));
  const close = () => notice.remove();
  notice.append(button("Dismiss", { icon: "close", kind: "plain slim", text: false, onclick: close }));
  while (list.children.length >= MOST) list.firstChild.remove();
  list.append(notice);
  // Errors stay until they are read.
  if (tone !== "bad") setTimeout(close, SHOWN_MS);
}

export const say = (text) => show(text, "good", "check");

export function fail(error) {
  if (error.name === "AbortError" || error.status === 401 || error.status === -1) return;
  show(error.message ?? String(error), "bad", "alert");
}

/** Asks a question; returns true if the user agrees. Escape and Cancel mean no. */
export function confirm(title, text, action) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "confirm-title" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "confirm-title" }, title),
        h("p", { class: "soft wrap" }, text),
        h(
          "div",
          { class: "tools" },
          h("button", { class: "button", value: "no", type: "submit" }, "Cancel"),
          h("button", { class: "button primary danger", value: "yes", type: "submit" }, action),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

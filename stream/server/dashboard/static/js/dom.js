// Elements without a framework: text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element. Names that begin with "on" are listeners, `data` is a dataset, others are attributes.
 * The value true makes an empty attribute; null and false leave it out.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") continue;
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, children);
  // Set last: a select needs its options first, and a slider its bounds.
  if (attributes.value !== undefined && attributes.value !== null) element.value = attributes.value;
  return element;
}

/** Appends strings and elements; null, false and undefined are left out. */
export function add(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Replaces the content of an element by `children`. */
export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return add(element, children);
}

/** Sets the text only if it differs, so that screen readers and selections are not disturbed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  cameras: ["M3 7h11v10H3z", "m14 11 6-3v8l-6-3z"],
  files: ["M4 4h10l5 5v11H4z", "M14 4v5h5", "M9 12.5v4l3.5-2z"],
  events: ["M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15z", "M10 20.5h4"],
  code: ["m8 8-4 4 4 4", "m16 8 4 4-4 4", "m13.5 6-3 12"],
  plus: ["M12 5v14", "M5 12h14"],
  minus: ["M5 12h14"],
  close: ["m6 6 12 12", "m18 6-12 12"],
  check: ["m5 12.5 4.5 4.5L19 7.5"],
  alert: ["M12 4 2.8 19.5h18.4z", "M12 10v4.5", "M12 17v.2"],
  info: ["M12 11v5.5", "M12 7.8v.2", "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18"],
  back: ["m14.5 6-6 6 6 6"],
  next: ["m9.5 6 6 6-6 6"],
  down: ["M12 4v11", "m7 10.5 5 5 5-5", "M5 20h14"],
  top: ["M5 5h14", "m6 17 6-6 6 6"],
  raise: ["m6 15 6-6 6 6"],
  lower: ["m6 9 6 6 6-6"],
  up: ["M12 20V6", "m7 10.5 5-5 5 5", "M5 3h14"],
  play: ["M8 5.5v13l10.5-6.5z"],
  pause: ["M8.5 5.5v13", "M15.5 5.5v13"],
  edit: ["M4 20l1-4.5L16 4.5l3.5 3.5-11 11z", "m13.5 7 3.5 3.5"],
  bin: ["M5 7h14", "M9 7V4.5h6V7", "m6.5 7 1 13h9l1-13"],
  full: ["M4 9V4h5", "M20 9V4h-5", "M4 15v5h5", "M20 15v5h-5"],
  picture: ["M4 5h16v14H4z", "m4 16 5-5 4.5 4.5L16 13l4 4", "M15.5 9v.2"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8", "M12 3v2", "M12 19v2", "M3 12h2", "M19 12h2",
    "m5.6 5.6 1.5 1.5", "m16.9 16.9 1.5 1.5", "m5.6 18.4 1.5-1.5", "m16.9 7.1 1.5-1.5"],
  moon: ["M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z"],
  leave: ["M14 4H5v16h9", "M10 12h10", "m16.5 8.5 3.5 3.5-3.5 3.5"],
  lock: ["M5 11h14v9H5z", "M8 11V8a4 4 0 0 1 8 0v3"],
  broken: ["m3 3 18 18", "M9 6h5v4l6-2v8", "M14 14v3H4V7"],
  sleep: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18", "M12 7.5V12l3 2"],
  search: ["M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13", "m15.5 15.5 5 5"],
  region: ["M4 8V4h4", "M16 4h4v4", "M20 16v4h-4", "M8 20H4v-4", "M9 12h6", "M12 9v6"],
  copy: ["M8 8h12v12H8z", "M16 8V4H4v12h4"],
  folder: ["M3 6h6l2 2.5h10V19H3z"],
  server: ["M4 5h16v6H4z", "M4 13h16v6H4z", "M7.5 8v.2", "M7.5 16v.2"],
  step: ["M6 6v12", "m17 6-7 6 7 6z"],
  stepnext: ["M18 6v12", "m7 6 7 6-7 6z"],
  sound: ["M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z", "M15.5 9a4 4 0 0 1 0 6", "M18 6.5a8 8 0 0 1 0 11"],
  silent: ["M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z", "m16 9.5 5 5", "m21 9.5-5 5"],
};

/** Sets a slider to `value` and draws its filled part; without a value it only draws. */
export function slide(input, value = input.value) {
  if (input.value !== String(value)) input.value = String(value);
  const part = (Number(input.value) - Number(input.min)) / (Number(input.max) - Number(input.min));
  input.style.setProperty("--part", String(part));
}

/** A line drawing, hidden from screen readers: they read the text beside it. */
export function icon(name) {
  const paths = ICONS[name].map((d) => svg("path", { d }));
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, paths);
}

/** A button with an icon. Without `text` the label is read out and shown as a tooltip only. */
export function button(label, { icon: drawing, kind = "", text = true, ...attributes } = {}) {
  const shape = text ? "" : "square";
  return h(
    "button",
    {
      type: "button",
      class: `button ${kind} ${shape}`,
      "aria-label": text ? null : label,
      title: text ? null : label,
      ...attributes,
    },
    drawing && icon(drawing),
    text && h("span", {}, label),
  );
}

/** The content of a page in place of an empty list. */
export function empty(drawing, title, text, ...tools) {
  return h(
    "div",
    { class: "empty" },
    icon(drawing),
    h("h2", {}, title),
    text && h("p", {}, text),
    tools.length > 0 && h("div", { class: "tools" }, tools),
  );
}

"use strict";
// The page shows only the data that it contains; it makes no request.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const LAYERS = Object.keys(data.names);
const MOMENTS = data.moments;
/** Longest wait between two frames while playing, ms. The frames of the page may be minutes apart. */
const LONGEST_MS = 250;
/** Steps of the divider by arrow keys and by page keys, as shares of the width. */
const STEP = 0.02;
const LARGE_STEP = 0.1;
const state = { at: 0.5, n: data.first, view: "divider", zoom: "whole", what: "ab", gain: data.gain, left: "a", right: "b", curve: 0 };
const shown = { images: null, request: 0, playing: 0 };

function make(name, attributes = {}, ...children) {
  const svg = ["line", "path", "text", "circle"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const letter = (layer) => ({ a: "A", b: "B", r: "Reference" })[layer];
const seconds = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(3).padStart(6, "0")}`;

// Pictures are decoded when they are needed; the last 40 are cached.
const decoded = new Map();

function image(n, kind, key) {
  const id = `${n} ${kind} ${key}`;
  if (!decoded.has(id)) {
    const picture = new Image();
    const mime = kind === "heat" ? data.heat_type : data.picture_type;
    picture.src = `data:${mime};base64,${MOMENTS[n][kind][key]}`;
    decoded.set(id, picture.decode().then(() => picture));
    if (decoded.size > 40) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(id);
}

/** The pictures, being decoded, that the present view needs of a frame. */
function picturesOf(n) {
  const pictures = Object.fromEntries(LAYERS.map((key) => [key, image(n, "pictures", key)]));
  if (state.view === "difference") pictures.heat = image(n, "heat", state.what);
  return pictures;
}

/** Draws frame `n` as soon as its pictures are decoded. `data-shown` holds its number from then on. */
async function show(n = state.n) {
  state.n = Math.max(0, Math.min(MOMENTS.length - 1, n));
  shown.request += 1;
  const request = shown.request;
  delete document.documentElement.dataset.shown;
  const decoding = Object.entries(picturesOf(state.n));
  const images = Object.fromEntries(await Promise.all(decoding.map(async ([key, one]) => [key, await one])));
  if (request !== shown.request) return;
  shown.images = images;
  draw();
  describe();
  document.documentElement.dataset.shown = `${state.n}`;
}

/** The part of the picture that is shown: x, y, width, height in its px, with the picture's aspect ratio. */
function visiblePart() {
  const [width, height] = data.size;
  const moment = MOMENTS[state.n];
  const box = state.zoom === "spot" ? moment.spot : nearestFace(state.zoom);
  if (!box) return [0, 0, width, height];
  const shape = width / height;
  const tall = Math.min(height, width / shape, Math.max(box[3], box[2] / shape));
  const wide = tall * shape;
  const within = (value, most) => Math.max(0, Math.min(most, value));
  return [within(box[0] + (box[2] - wide) / 2, width - wide), within(box[1] + (box[3] - tall) / 2, height - tall), wide, tall];
}

/** A face's box in this frame or in the nearest frame that shows the face. */
function nearestFace(number) {
  let best = null;
  for (const [n, moment] of MOMENTS.entries()) {
    const box = moment.faces[number];
    if (box && (best === null || Math.abs(n - state.n) < best.distance)) best = { box, distance: Math.abs(n - state.n) };
  }
  return best && best.box;
}

const canvas = byId("picture");
const context = canvas.getContext("2d");

function draw() {
  const frame = byId("frame");
  const ratio = window.devicePixelRatio || 1;
  const [wide, tall] = [frame.clientWidth, frame.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
  if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
  if (!shown.images) return;
  const box = visiblePart();
  context.imageSmoothingEnabled = wide / box[2] < 4;
  context.imageSmoothingQuality = "high";
  const put = (picture, x0 = 0, x1 = wide) => {
    context.save();
    context.beginPath();
    context.rect(x0, 0, x1 - x0, tall);
    context.clip();
    context.drawImage(picture, ...box, 0, 0, wide, tall);
    context.restore();
  };
  context.fillStyle = "#07090a";
  context.fillRect(0, 0, wide, tall);
  if (state.view === "divider") {
    const cut = Math.round(state.at * wide);
    put(shown.images[state.right], cut);
    put(shown.images[state.left], 0, cut);
  } else if (state.view === "difference") {
    context.globalAlpha = 0.35;
    put(shown.images[state.what[0]]);
    context.globalAlpha = 1;
    put(heat(shown.images.heat));
  } else put(shown.images[state.view]);
}

function palette() {
  const anchors = data.anchors;
  return Array.from({ length: 256 }, (_, value) => {
    const at = value / 255;
    const upper = Math.max(1, anchors.findIndex(([position]) => position >= at));
    const [[from, first], [to, second]] = [anchors[upper - 1], anchors[upper]];
    return first.map((part, n) => Math.round(part + ((second[n] - part) * (at - from)) / (to - from)));
  });
}
const PALETTE = palette();

/** A heat map of differences that are stored on a square-root scale. It is transparent where nothing differs. */
function heat(picture) {
  const map = make("canvas", { width: data.size[0], height: data.size[1] });
  const mapContext = map.getContext("2d", { willReadFrequently: true });
  mapContext.drawImage(picture, 0, 0);
  const pixels = mapContext.getImageData(0, 0, map.width, map.height);
  const values = pixels.data;
  const table = Array.from({ length: 256 }, (_, stored) => Math.min(255, Math.round(((stored * stored) / 255) * 2 ** state.gain)));
  for (let at = 0; at < values.length; at += 4) {
    const level = table[values[at]];
    [values[at], values[at + 1], values[at + 2]] = PALETTE[level];
    values[at + 3] = Math.min(255, level * 6);
  }
  mapContext.putImageData(pixels, 0, 0);
  return map;
}

// Texts.
function number(value, digits, unit) {
  if (value === null || value === undefined) return "identical";
  return `${value.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
}

/** Describes the present frame to readers and to screen readers. */
function describe() {
  const moment = MOMENTS[state.n];
  const parts = data.video ? [`frame ${moment.frame + 1}`, seconds(moment.time)] : [];
  for (const curve of data.curves) {
    for (const line of curve.lines) {
      parts.push(`${curve.label}${line.label ? ` ${line.label}` : ""} ${number(line.values[moment.pair], curve.digits, curve.unit)}`);
    }
  }
  byId("now").textContent = parts.join(" · ");
  const time = data.video ? `${seconds(moment.time)}` : "";
  byId("time").textContent = time;
  const position = byId("position");
  position.value = state.n;
  position.setAttribute("aria-valuetext", `frame ${moment.frame + 1}, ${time}, ${state.n + 1} of ${MOMENTS.length} shown`);
  const words = { divider: `${data.names[state.left]} left of the divider, ${data.names[state.right]} right of it`, difference: differenceWords() };
  canvas.setAttribute("aria-label", `${words[state.view] || data.names[state.view]}${time ? `, at ${time}` : ""}${state.zoom === "whole" ? "" : ", enlarged"}`);
  cursor();
}

const differenceWords = () => `Difference between ${letter(state.what[0])} and ${letter(state.what[1])}`;

function arrange() {
  const divided = state.view === "divider";
  byId("divider").hidden = !divided;
  byId("frame").classList.toggle("divided", divided);
  byId("legend").hidden = state.view !== "difference";
  byId("left-label").hidden = byId("right-label").hidden = !divided || LAYERS.length < 3;
  const single = state.view === "difference" ? differenceWords() : data.names[state.view];
  byId("tag-left").textContent = divided ? data.names[state.left] : single;
  byId("tag-right").textContent = divided ? data.names[state.right] : "";
  byId("tag-right").hidden = !divided;
  byId("frame").classList.toggle("single", !divided);
  for (const button of byId("views").children) button.setAttribute("aria-pressed", String(button.value === state.view));
  const top = 255 / 2 ** state.gain;
  const ticks = byId("ticks").children;
  [0, top / 2, top].forEach((value, n) => (ticks[n].textContent = value < 10 ? String(Math.round(value * 10) / 10) : String(Math.round(value))));
  const words = `${2 ** state.gain}×: full colour at ${Math.round(top)} of 255 levels`;
  byId("gain-words").textContent = words;
  byId("gain").setAttribute("aria-valuetext", words);
  show();
}

// Divider.
function divide(at) {
  state.at = Math.max(0, Math.min(1, at));
  const percent = Math.round(state.at * 100);
  const handle = byId("divider");
  handle.style.left = `${state.at * 100}%`;
  handle.setAttribute("aria-valuenow", String(percent));
  handle.setAttribute("aria-valuetext", `${percent} % ${letter(state.left)}, ${100 - percent} % ${letter(state.right)}`);
  draw();
}

function dividerEvents() {
  const frame = byId("frame");
  let dragging = null;
  const to = (event) => {
    const box = frame.getBoundingClientRect();
    divide((event.clientX - box.left) / box.width);
  };
  frame.addEventListener("pointerdown", (event) => {
    if (state.view !== "divider" || event.button !== 0) return;
    dragging = event.pointerId;
    frame.setPointerCapture(event.pointerId);
    byId("divider").focus({ preventScroll: true });
    if (!event.target.closest(".divider")) to(event);
    event.preventDefault();
  });
  frame.addEventListener("pointermove", (event) => dragging === event.pointerId && to(event));
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (dragging = null));
  byId("divider").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, PageDown: -LARGE_STEP, PageUp: LARGE_STEP, Home: -1, End: 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    divide(state.at + moves[event.key]);
  });
}

// Playing.
const PLAY = "M7 4l13 8-13 8z";
const PAUSE = "M6 4h4v16H6zM14 4h4v16h-4z";

/** Plays from the present frame, or from the first after the last one; `on` false pauses. */
function play(on) {
  clearTimeout(shown.playing);
  shown.playing = 0;
  byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
  byId("play-icon").setAttribute("d", on ? PAUSE : PLAY);
  byId("now").setAttribute("aria-live", on ? "off" : "polite");
  if (!on) return;
  if (state.n === MOMENTS.length - 1) state.n = 0;
  const next = async () => {
    const began = performance.now();
    await show();
    if (!shown.playing) return;
    if (state.n === MOMENTS.length - 1) return play(false);
    const gap = Math.min(LONGEST_MS, 1000 * (MOMENTS[state.n + 1].time - MOMENTS[state.n].time));
    picturesOf(state.n + 1);
    shown.playing = setTimeout(() => {
      state.n += 1;
      next();
    }, Math.max(0, gap - (performance.now() - began)));
  };
  shown.playing = -1;
  next();
}

// The plot is drawn for the present width; its cursor follows the scrubber.
const plot = byId("plot");
const EDGE = { left: 52, right: 12, top: 12, bottom: 26 };
const scaleOf = { x: () => 0 };

function drawPlot() {
  const curve = data.curves[state.curve];
  const width = plot.clientWidth;
  const height = plot.clientHeight;
  if (!width || !curve) return;
  const all = curve.lines.flatMap((line) => line.values).filter((value) => value !== null);
  const low = curve.zero ? 0 : Math.min(...all);
  const high = Math.max(...all, low);
  const room = (high - low || 1) * 0.06;
  const [from, to] = [curve.zero ? 0 : low - room, high + room];
  const first = data.times[0];
  const length = data.times.at(-1) - first || 1;
  const x = (time) => EDGE.left + ((time - first) / length) * (width - EDGE.left - EDGE.right);
  const y = (value) => EDGE.top + (1 - (value - from) / (to - from)) * (height - EDGE.top - EDGE.bottom);
  scaleOf.x = x;
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    const value = from + share * (to - from);
    parts.push(make("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
    parts.push(make("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(curve.digits)));
  }
  for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const time = first + share * length;
    parts.push(make("text", { x: x(time), y: height - 6, "text-anchor": anchor }, seconds(time).slice(0, -2)));
  }
  for (const moment of MOMENTS) {
    parts.push(make("line", { class: "stored", x1: x(moment.time), x2: x(moment.time), y1: height - EDGE.bottom, y2: height - EDGE.bottom + 5 }));
  }
  for (const line of curve.lines) {
    let path = "";
    let joined = false;
    line.values.forEach((value, n) => {
      if (value !== null) path += `${joined ? "L" : "M"}${x(data.times[n]).toFixed(1)} ${y(value).toFixed(1)}`;
      joined = value !== null;
    });
    const element = make("path", { class: "curve", d: path });
    element.style.stroke = `var(--${line.colour})`;
    parts.push(element);
  }
  curve.lines.forEach((line, n) => {
    if (!line.label) return;
    const text = make("text", { x: EDGE.left + 8 + 90 * n, y: EDGE.top + 12 }, line.label);
    text.style.fill = `var(--${line.colour})`;
    parts.push(text);
  });
  parts.push(make("line", { class: "cursor", id: "cursor", y1: EDGE.top, y2: height - EDGE.bottom + 5 }));
  plot.replaceChildren(...parts);
  plot.setAttribute("aria-label", `${curve.label} of every frame, between ${number(Math.min(...all), curve.digits, curve.unit)} and ${number(high, curve.digits, curve.unit)}`);
  cursor();
}

function cursor() {
  const line = byId("cursor");
  if (!line) return;
  const x = scaleOf.x(MOMENTS[state.n].time);
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}

function seek(event) {
  const at = event.clientX - plot.getBoundingClientRect().left;
  const distances = MOMENTS.map((moment) => Math.abs(scaleOf.x(moment.time) - at));
  play(false);
  show(distances.indexOf(Math.min(...distances)));
}

// Controls.
function options(select, pairs, key, then = arrange) {
  select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
  select.value = state[key];
  select.addEventListener("change", () => {
    state[key] = key === "curve" ? Number(select.value) : select.value;
    then();
  });
}

function begin() {
  byId("frame").style.setProperty("--shape", String(data.size[0] / data.size[1]));
  const views = [["divider", "Divider"], ...LAYERS.map((key) => [key, letter(key)]), ["difference", "Difference"]];
  for (const [n, [value, text]] of views.entries()) {
    const button = make("button", { type: "button", value, "aria-keyshortcuts": String(n + 1) }, text);
    button.addEventListener("click", () => {
      state.view = value;
      arrange();
    });
    byId("views").append(button);
  }
  const numbers = [...new Set(MOMENTS.flatMap((moment) => Object.keys(moment.faces)))].sort();
  const faces = numbers.map((n) => [n, numbers.length > 1 ? `Face ${Number(n) + 1}` : "Face"]);
  options(byId("zoom"), [["whole", "Whole picture"], ...faces, ["spot", "Largest difference"]], "zoom");
  const named = LAYERS.map((key) => [key, letter(key)]);
  options(byId("left"), named, "left");
  options(byId("right"), named, "right");
  const pairs = Object.keys(MOMENTS[0].heat).map((key) => [key, `${letter(key[0])} and ${letter(key[1])}`]);
  options(byId("what"), pairs, "what");
  byId("what-label").hidden = pairs.length < 2;
  const gain = byId("gain");
  gain.value = state.gain;
  gain.addEventListener("input", () => {
    state.gain = Number(gain.value);
    arrange();
  });
  const colours = byId("scale").getContext("2d");
  PALETTE.forEach((colour, n) => {
    colours.fillStyle = `rgb(${colour.join(" ")})`;
    colours.fillRect(n, 0, 1, 1);
  });
  dividerEvents();
  divide(state.at);
  if (MOMENTS.length > 1) {
    byId("scrub").hidden = byId("curves").hidden = false;
    const position = byId("position");
    position.max = String(MOMENTS.length - 1);
    position.addEventListener("input", () => {
      play(false);
      show(Number(position.value));
    });
    byId("play").addEventListener("click", () => play(!shown.playing));
    options(byId("curve"), data.curves.map((curve, n) => [n, curve.unit ? `${curve.label}, ${curve.unit}` : curve.label]), "curve", drawPlot);
    plot.addEventListener("pointerdown", seek);
    plot.addEventListener("pointermove", (event) => event.buttons === 1 && seek(event));
    new ResizeObserver(drawPlot).observe(plot);
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, button")) return;
    const view = views[Number(event.key) - 1];
    const moves = { ",": -1, ".": 1 };
    if (view) [state.view] = view;
    else if (event.key in moves && MOMENTS.length > 1) play(false);
    else if (event.key === " " && MOMENTS.length > 1) play(!shown.playing);
    else return;
    event.preventDefault();
    if (event.key in moves) show(state.n + moves[event.key]);
    else if (view) arrange();
  });
  new ResizeObserver(draw).observe(byId("frame"));
  arrange();
}

begin();

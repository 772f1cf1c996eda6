"use strict";
// Everything the page shows comes from its own data: nothing is asked of anybody.
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const LAYERS = Object.keys(data.names);
const MOMENTS = data.moments;
/** Longest wait between two frames while playing, ms: evenly chosen frames may lie minutes apart. */
const LONGEST_MS = 250;
const STEP = 0.02;
const LEAP = 0.1;
const state = { at: 0.5, n: data.first, view: "divider", zoom: "whole", what: "ab", gain: data.gain, left: "a", right: "b", curve: 0 };
const shown = { images: null, playing: 0 };

function make(name, attributes = {}, ...children) {
  const svg = ["line", "path", "text", "circle"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const letter = (layer) => ({ a: "A", b: "B", r: "Reference" })[layer];
const seconds = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(3).padStart(6, "0")}`;

// Pictures: decoded when needed, the last few kept.
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

function wanted(n) {
  const pictures = Object.fromEntries(LAYERS.map((key) => [key, image(n, "pictures", key)]));
  if (state.view === "difference") pictures.heat = image(n, "heat", state.what);
  return pictures;
}

async function show(n = state.n) {
  state.n = Math.max(0, Math.min(MOMENTS.length - 1, n));
  const asked = state.n;
  const wishes = Object.entries(wanted(asked));
  const images = Object.fromEntries(await Promise.all(wishes.map(async ([key, one]) => [key, await one])));
  if (asked !== state.n || (state.view === "difference" && !images.heat)) return;
  shown.images = images;
  draw();
  tell();
  document.documentElement.dataset.shown = `${asked}`;
}

// The part of the picture that is shown, in its own px, of the picture's shape.
function part() {
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

/** A face's box in this frame, else in the nearest that shows it. */
function nearestFace(number) {
  let best = null;
  for (const [n, moment] of MOMENTS.entries()) {
    const box = moment.faces[number];
    if (box && (best === null || Math.abs(n - state.n) < best.off)) best = { box, off: Math.abs(n - state.n) };
  }
  return best && best.box;
}

const canvas = by("picture");
const context = canvas.getContext("2d");

function draw() {
  const frame = by("frame");
  const ratio = window.devicePixelRatio || 1;
  const [wide, tall] = [frame.clientWidth, frame.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
  if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
  if (!shown.images) return;
  const box = part();
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
    const upper = Math.max(1, anchors.findIndex(([place]) => place >= at));
    const [[from, first], [to, second]] = [anchors[upper - 1], anchors[upper]];
    return first.map((part, n) => Math.round(part + ((second[n] - part) * (at - from)) / (to - from)));
  });
}
const PALETTE = palette();

/** Differences, stored on a square-root scale, in colours; where nothing differs the picture shows through. */
function heat(picture) {
  const sheet = make("canvas", { width: data.size[0], height: data.size[1] });
  const paper = sheet.getContext("2d", { willReadFrequently: true });
  paper.drawImage(picture, 0, 0);
  const pixels = paper.getImageData(0, 0, sheet.width, sheet.height);
  const values = pixels.data;
  const table = Array.from({ length: 256 }, (_, code) => Math.min(255, Math.round(((code * code) / 255) * 2 ** state.gain)));
  for (let at = 0; at < values.length; at += 4) {
    const level = table[values[at]];
    [values[at], values[at + 1], values[at + 2]] = PALETTE[level];
    values[at + 3] = Math.min(255, level * 6);
  }
  paper.putImageData(pixels, 0, 0);
  return sheet;
}

// Words.
function number(value, digits, unit) {
  if (value === null || value === undefined) return "identical";
  return `${value.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
}

function tell() {
  const moment = MOMENTS[state.n];
  const parts = data.video ? [`frame ${moment.frame + 1}`, seconds(moment.time)] : [];
  for (const curve of data.curves) {
    for (const line of curve.lines) {
      parts.push(`${curve.label}${line.label ? ` ${line.label}` : ""} ${number(line.values[moment.pair], curve.digits, curve.unit)}`);
    }
  }
  by("now").textContent = parts.join(" · ");
  const time = data.video ? `${seconds(moment.time)}` : "";
  by("time").textContent = time;
  const position = by("position");
  position.value = state.n;
  position.setAttribute("aria-valuetext", `frame ${moment.frame + 1}, ${time}, ${state.n + 1} of ${MOMENTS.length} shown`);
  const words = { divider: `${data.names[state.left]} left of the divider, ${data.names[state.right]} right of it`, difference: differenceWords() };
  canvas.setAttribute("aria-label", `${words[state.view] || data.names[state.view]}${time ? `, at ${time}` : ""}${state.zoom === "whole" ? "" : ", enlarged"}`);
  cursor();
}

const differenceWords = () => `Difference between ${letter(state.what[0])} and ${letter(state.what[1])}`;

function arrange() {
  const divided = state.view === "divider";
  by("divider").hidden = !divided;
  by("frame").classList.toggle("divided", divided);
  by("legend").hidden = state.view !== "difference";
  by("left-label").hidden = by("right-label").hidden = !divided || LAYERS.length < 3;
  const single = state.view === "difference" ? differenceWords() : data.names[state.view];
  by("tag-left").textContent = divided ? data.names[state.left] : single;
  by("tag-right").textContent = divided ? data.names[state.right] : "";
  by("tag-right").hidden = !divided;
  by("frame").classList.toggle("single", !divided);
  for (const button of by("views").children) button.setAttribute("aria-pressed", String(button.value === state.view));
  const top = 255 / 2 ** state.gain;
  const ticks = by("ticks").children;
  [0, top / 2, top].forEach((value, n) => (ticks[n].textContent = value < 10 ? String(Math.round(value * 10) / 10) : String(Math.round(value))));
  const words = `${2 ** state.gain}×: full colour at ${Math.round(top)} of 255 levels`;
  by("gain-words").textContent = words;
  by("gain").setAttribute("aria-valuetext", words);
  show();
}

// The divider.
function divide(at) {
  state.at = Math.max(0, Math.min(1, at));
  const percent = Math.round(state.at * 100);
  const handle = by("divider");
  handle.style.left = `${state.at * 100}%`;
  handle.setAttribute("aria-valuenow", String(percent));
  handle.setAttribute("aria-valuetext", `${percent} % ${letter(state.left)}, ${100 - percent} % ${letter(state.right)}`);
  draw();
}

function dividerEvents() {
  const frame = by("frame");
  let dragging = null;
  const to = (event) => {
    const box = frame.getBoundingClientRect();
    divide((event.clientX - box.left) / box.width);
  };
  frame.addEventListener("pointerdown", (event) => {
    if (state.view !== "divider" || event.button !== 0) return;
    dragging = event.pointerId;
    frame.setPointerCapture(event.pointerId);
    by("divider").focus({ preventScroll: true });
    if (!event.target.closest(".divider")) to(event);
    event.preventDefault();
  });
  frame.addEventListener("pointermove", (event) => dragging === event.pointerId && to(event));
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (dragging = null));
  by("divider").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, PageDown: -LEAP, PageUp: LEAP, Home: -1, End: 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    divide(state.at + moves[event.key]);
  });
}

// Playing.
const PLAY = "M7 4l13 8-13 8z";
const PAUSE = "M6 4h4v16H6zM14 4h4v16h-4z";

function play(wish) {
  clearTimeout(shown.playing);
  shown.playing = 0;
  by("play").setAttribute("aria-label", wish ? "Pause" : "Play");
  by("play-icon").setAttribute("d", wish ? PAUSE : PLAY);
  by("now").setAttribute("aria-live", wish ? "off" : "polite");
  if (!wish) return;
  if (state.n === MOMENTS.length - 1) state.n = 0;
  const next = async () => {
    const began = performance.now();
    await show();
    if (!shown.playing) return;
    if (state.n === MOMENTS.length - 1) return play(false);
    const gap = Math.min(LONGEST_MS, 1000 * (MOMENTS[state.n + 1].time - MOMENTS[state.n].time));
    wanted(state.n + 1);
    shown.playing = setTimeout(() => {
      state.n += 1;
      next();
    }, Math.max(0, gap - (performance.now() - began)));
  };
  shown.playing = -1;
  next();
}

// The plot: drawn for the width at hand; its line follows the scrubber.
const plot = by("plot");
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
  const line = by("cursor");
  if (!line) return;
  const x = scaleOf.x(MOMENTS[state.n].time);
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}

function seek(event) {
  const at = event.clientX - plot.getBoundingClientRect().left;
  const off = MOMENTS.map((moment) => Math.abs(scaleOf.x(moment.time) - at));
  play(false);
  show(off.indexOf(Math.min(...off)));
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
  by("frame").style.setProperty("--shape", String(data.size[0] / data.size[1]));
  const views = [["divider", "Divider"], ...LAYERS.map((key) => [key, letter(key)]), ["difference", "Difference"]];
  for (const [n, [value, text]] of views.entries()) {
    const button = make("button", { type: "button", value, "aria-keyshortcuts": String(n + 1) }, text);
    button.addEventListener("click", () => {
      state.view = value;
      arrange();
    });
    by("views").append(button);
  }
  const numbers = [...new Set(MOMENTS.flatMap((moment) => Object.keys(moment.faces)))].sort();
  const faces = numbers.map((n) => [n, numbers.length > 1 ? `Face ${Number(n) + 1}` : "Face"]);
  options(by("zoom"), [["whole", "Whole picture"], ...faces, ["spot", "Where most differs"]], "zoom");
  const named = LAYERS.map((key) => [key, letter(key)]);
  options(by("left"), named, "left");
  options(by("right"), named, "right");
  const pairs = Object.keys(MOMENTS[0].heat).map((key) => [key, `${letter(key[0])} and ${letter(key[1])}`]);
  options(by("what"), pairs, "what");
  by("what-label").hidden = pairs.length < 2;
  const gain = by("gain");
  gain.value = state.gain;
  gain.addEventListener("input", () => {
    state.gain = Number(gain.value);
    arrange();
  });
  const colours = by("scale").getContext("2d");
  PALETTE.forEach((colour, n) => {
    colours.fillStyle = `rgb(${colour.join(" ")})`;
    colours.fillRect(n, 0, 1, 1);
  });
  dividerEvents();
  divide(state.at);
  if (MOMENTS.length > 1) {
    by("scrub").hidden = by("curves").hidden = false;
    const position = by("position");
    position.max = String(MOMENTS.length - 1);
    position.addEventListener("input", () => {
      play(false);
      show(Number(position.value));
    });
    by("play").addEventListener("click", () => play(!shown.playing));
    options(by("curve"), data.curves.map((curve, n) => [n, curve.unit ? `${curve.label}, ${curve.unit}` : curve.label]), "curve", drawPlot);
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
  new ResizeObserver(draw).observe(by("frame"));
  arrange();
}

begin();

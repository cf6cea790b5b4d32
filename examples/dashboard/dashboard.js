// Samples come over a WebSocket. Charts are drawn with the screen's next frame, and only if there is something new.
import { stayConnected } from "/pages.js";

const WINDOW = 600; // samples in a chart
const SOURCES = ["hydro", "gas", "wind", "sun"]; // stacked in this order

const $ = (id) => document.getElementById(id);
let samples = [];
let shown = []; // what is drawn; stays as it is while paused
let missed = 0;
let tick = 0.1; // seconds between two samples
let arrivals = [];
let paused = false;
let waiting = false;

stayConnected("/feed", {
  received(message) {
    const fresh = message.samples;
    if (message.tick) { // the first message has the last minute
      tick = message.tick;
      samples = fresh;
    } else {
      missed += Math.max(fresh[0].n - samples.at(-1).n - 1, 0);
      samples = [...samples, ...fresh].filter(({ n }) => n > fresh.at(-1).n - WINDOW);
      arrivals.push(performance.now());
      $("watchers").textContent = message.watchers;
    }
    redraw();
  },
});

function redraw() {
  if (!paused) shown = samples;
  if (!shown.length) return;
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

// ---- drawing -------------------------------------------------------------------------------------------------------

/** A canvas as large as it is shown, with `x(n)` of a sample and `y(value)`. */
function chart(id, low, high, left) {
  const canvas = $(id);
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineJoin = "round";
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const [top, bottom] = [8, 20];
  const newest = shown.at(-1).n;
  return {
    context, width, height, left, bottom: height - bottom,
    x: (n) => width - 4 - ((newest - n) / (WINDOW - 1)) * (width - left - 4),
    y: (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom),
  };
}

const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue(`--${name}`).trim();

/** Lines at these values, and how long ago along the bottom. */
function grid({ context, width, left, bottom, x, y }, values, seconds, label = String) {
  context.strokeStyle = colour("line");
  context.fillStyle = colour("soft");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of values) {
    const at = Math.round(y(value)) + 0.5;
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(width, at);
    context.stroke();
    context.fillText(label(value), left - 8, at);
  }
  context.textBaseline = "alphabetic";
  const newest = shown.at(-1).n;
  for (const ago of seconds) {
    context.textAlign = ago ? "center" : "right";
    context.fillText(ago ? `−${ago} s` : "now", x(newest - ago / tick), bottom + 16);
  }
}

/** Along the values; a gap where shown were missed. */
function line({ context, x, y }, value, stroke, width = 2) {
  context.beginPath();
  shown.forEach((sample, i) => {
    const move = i === 0 || sample.n - shown[i - 1].n > 5;
    context[move ? "moveTo" : "lineTo"](x(sample.n), y(value(sample)));
  });
  context.strokeStyle = stroke;
  context.lineWidth = width;
  context.stroke();
}

function band({ context, x, y }, lower, upper, fill) {
  context.beginPath();
  for (const sample of shown) context.lineTo(x(sample.n), y(upper(sample)));
  for (const sample of [...shown].reverse()) context.lineTo(x(sample.n), y(lower(sample)));
  context.fillStyle = fill;
  context.fill();
}

const stacked = (sample, count) => SOURCES.slice(0, count).reduce((sum, name) => sum + sample[name], 0);
const green = (sample) => 100 * (1 - sample.gas / stacked(sample, SOURCES.length));

function draw() {
  waiting = false;
  const newest = shown.at(-1);
  for (const name of [...SOURCES, "demand"]) $(name).textContent = newest[name].toLocaleString("en");
  $("frequency").textContent = newest.frequency.toFixed(3);
  $("green").textContent = Math.round(green(newest));
  $("number").textContent = newest.n.toLocaleString("en");
  $("missed").textContent = missed.toLocaleString("en");
  arrivals = arrivals.filter((at) => at > performance.now() - 3000);
  if (arrivals.length > 1) {
    const seconds = (arrivals.at(-1) - arrivals[0]) / 1000;
    $("rate").textContent = ((arrivals.length - 1) / seconds).toFixed(1);
  }

  const most = Math.max(...shown.map((s) => Math.max(s.demand, stacked(s, SOURCES.length))));
  const levels = Array.from({ length: Math.ceil(most / 200) + 1 }, (_, i) => i * 200);
  const mix = chart("mix", 0, levels.at(-1), 44);
  grid(mix, levels, mix.width > 500 ? [50, 40, 30, 20, 10, 0] : [40, 20, 0]);
  SOURCES.forEach((name, i) => {
    band(mix, (s) => stacked(s, i), (s) => stacked(s, i + 1), `${colour(name)}b8`);
    line(mix, (s) => stacked(s, i + 1), colour(name), 1.5);
  });
  line(mix, (s) => s.demand, colour("card"), 5);
  line(mix, (s) => s.demand, colour("demand"));

  const farthest = Math.max(...shown.map((s) => Math.abs(s.frequency - 50)));
  const away = [0.02, 0.05, 0.1, 0.2, 0.5].find((value) => value >= farthest) ?? 1;
  const hertz = chart("frequency-chart", 50 - away, 50 + away, 44);
  grid(hertz, [50 - away, 50, 50 + away], [30, 0], (value) => value.toFixed(2));
  line(hertz, (s) => s.frequency, colour("frequency"));

  const share = chart("green-chart", 0, 100, 44);
  grid(share, [0, 50, 100], [30, 0], (value) => `${value} %`);
  band(share, () => 0, green, `${colour("green")}38`);
  line(share, green, colour("green"));
}

// ---- what people do ------------------------------------------------------------------------------------------------

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  redraw();
});

new ResizeObserver(redraw).observe($("mix"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

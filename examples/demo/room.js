"use strict";

// One WebSocket: everything that is typed goes out, everything that others type comes in. All text of others is set
// with textContent, never as HTML.

const POINTS = 120; // of a graph: one minute at two a second
const RETRY_FIRST = 400;
const RETRY_MOST = 5000;

const $ = (id) => document.getElementById(id);
const talk = $("talk");
const input = $("text");
const button = $("composer").querySelector("button");

let socket = null;
let me = null;
let retryAfter = RETRY_FIRST;
let retryTimer = 0;
let sentDraft = "";
let lastSpeaker = null;
const people = new Map();
const drafts = new Map();

// ---- connection ----------------------------------------------------------------------------------------------------

function connect() {
  clearTimeout(retryTimer);
  setState("connecting", "Connecting…");
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const name = sessionStorage.getItem("name");
  if (name) url.searchParams.set("name", name);
  socket = new WebSocket(url);
  socket.onmessage = (event) => handle(JSON.parse(event.data));
  socket.onclose = (event) => {
    socket = null;
    people.clear();
    for (const id of [...drafts.keys()]) showDraft(id, "");
    showPeople();
    sentDraft = "";
    waitAndRetry(event.code === 1001 ? "Server closed" : "Offline");
  };
}

function waitAndRetry(why) {
  const until = Date.now() + retryAfter * (0.75 + Math.random() / 2); // jitter: not all tabs at the same moment
  retryAfter = Math.min(retryAfter * 1.6, RETRY_MOST);
  const tick = () => {
    const left = until - Date.now();
    if (left <= 0) return connect();
    setState("waiting", left > 1000 ? `${why} · retry in ${Math.ceil(left / 1000)} s` : `${why} · retrying…`);
    retryTimer = setTimeout(tick, Math.min(left, 250));
  };
  tick();
}

function setState(state, text) {
  document.body.dataset.state = state;
  if ($("state").textContent !== text) $("state").textContent = text;
  button.disabled = state !== "open" || !input.value.trim();
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

addEventListener("online", () => { if (!socket) connect(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !socket) connect(); });

// ---- what the server tells -----------------------------------------------------------------------------------------

const handlers = {
  welcome({ you, people: everybody, said, samples }) {
    me = you;
    sessionStorage.setItem("name", you.name);
    retryAfter = RETRY_FIRST;
    setState("open", "Live");
    for (const person of everybody) people.set(person.id, person);
    showPeople();
    $("said").replaceChildren();
    lastSpeaker = null;
    said.forEach((item) => showSaid(item, false));
    for (const { id, draft } of everybody) if (id !== you.id) showDraft(id, draft);
    graphs.people.values = samples.map((sample) => sample.people);
    graphs.rate.values = samples.map((sample) => sample.rate);
    shareDraft();
    probe();
  },
  join({ person }) {
    people.set(person.id, person);
    showPeople();
  },
  leave({ id }) {
    people.delete(id);
    showDraft(id, "");
    showPeople();
  },
  draft({ id, text }) { showDraft(id, text); },
  say(item) {
    showDraft(item.id, "");
    showSaid(item, true);
  },
  sample({ people: count, rate }) {
    graphs.people.add(count);
    graphs.rate.add(rate);
  },
  probe({ at }) { graphs.trip.add(performance.now() - at); },
};

function handle(event) {
  handlers[event.type]?.(event);
}

function probe() {
  send({ type: "probe", at: performance.now() });
}
setInterval(probe, 500);

// ---- conversation --------------------------------------------------------------------------------------------------

function element(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function face(person) {
  const node = element("span", "face", person.name.split(" ").map((word) => word[0]).join(""));
  node.ariaHidden = "true";
  return node;
}

function line(person, text) {
  const item = element("li", "line");
  item.style.setProperty("--hue", person.hue);
  item.append(face(person), element("span", "who", person.name), element("span", "bubble", text));
  return item;
}

function keepAtEnd(change) {
  const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
  change();
  $("empty").hidden = $("said").children.length + drafts.size > 0;
  if (atEnd) talk.scrollTop = talk.scrollHeight;
}

function showSaid(item, fresh) {
  keepAtEnd(() => {
    const node = line(item, item.text);
    const mine = item.name === me.name && (item.id === me.id || !people.has(item.id));
    node.classList.toggle("mine", mine);
    node.classList.toggle("more", lastSpeaker === item.id);
    node.classList.toggle("fresh", fresh);
    lastSpeaker = item.id;
    $("said").append(node);
    while ($("said").children.length > 200) $("said").firstChild.remove();
  });
}

function showDraft(id, text) {
  const person = people.get(id);
  keepAtEnd(() => {
    if (!text || !person) {
      drafts.get(id)?.remove();
      drafts.delete(id);
    } else if (drafts.has(id)) {
      drafts.get(id).querySelector(".bubble").textContent = text;
    } else {
      const node = line(person, text);
      drafts.set(id, node);
      $("drafts").append(node);
    }
  });
}

function showPeople() {
  const list = [...people.values()].sort((a, b) => (b.id === me?.id) - (a.id === me?.id) || a.id - b.id);
  $("people").replaceChildren(...list.map((person) => {
    const item = element("li", "");
    item.style.setProperty("--hue", person.hue);
    item.append(face(person), element("span", "", person.name));
    if (person.id === me?.id) item.append(element("span", "you", "you"));
    return item;
  }));
}

function shareDraft() {
  if (input.value === sentDraft) return;
  sentDraft = input.value;
  send({ type: "draft", text: sentDraft });
}

input.addEventListener("input", () => {
  button.disabled = document.body.dataset.state !== "open" || !input.value.trim();
  shareDraft();
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (button.disabled) return;
  send({ type: "say", text: input.value });
  input.value = sentDraft = "";
  button.disabled = true;
  input.focus();
  talk.scrollTop = talk.scrollHeight;
});

// ---- graphs --------------------------------------------------------------------------------------------------------

class Graph {
  constructor(name, format, clip = false) {
    this.name = name;
    this.clip = clip;
    this.format = format;
    this.values = [];
    this.canvas = document.querySelector(`[data-stat="${name}"] canvas`);
    this.output = $(`${name}-value`);
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > POINTS) this.values.shift();
    this.output.textContent = this.format(value);
    this.draw();
  }

  draw() {
    const { canvas, values } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (values.length < 2) return;
    const colour = getComputedStyle(document.documentElement).getPropertyValue(`--${this.name}-stroke`).trim();
    const top = 6;
    const bottom = 4;
    // One slow round trip would flatten all others: what is far over the usual is cut off.
    const usual = [...values].sort((a, b) => a - b)[values.length >> 1];
    const most = Math.max(1e-9, Math.min(Math.max(...values), this.clip ? usual * 6 : Infinity)) * 1.08;
    const x = (i) => width - 5 - (values.length - 1 - i) * (width / (POINTS - 1));
    const y = (value) => height - bottom - Math.min(value / most, 1) * (height - top - bottom);
    context.beginPath();
    values.forEach((value, i) => {
      if (i === 0) return context.moveTo(x(0), y(value));
      const middle = (x(i - 1) + x(i)) / 2; // smooth, and never beyond the values
      context.bezierCurveTo(middle, y(values[i - 1]), middle, y(value), x(i), y(value));
    });
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.stroke();
    context.lineTo(x(values.length - 1), height);
    context.lineTo(x(0), height);
    const fill = context.createLinearGradient(0, 0, 0, height);
    fill.addColorStop(0, `${colour}40`);
    fill.addColorStop(1, `${colour}00`);
    context.fillStyle = fill;
    context.fill();
    context.beginPath();
    context.arc(x(values.length - 1), y(values.at(-1)), 3, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
  }
}

const graphs = {
  people: new Graph("people", (value) => String(value)),
  rate: new Graph("rate", (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"))),
  trip: new Graph("trip", (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toString()), true),
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  Object.values(graphs).forEach((graph) => graph.draw());
});

connect();

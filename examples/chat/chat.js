// One room. All text of others is set with textContent, never as HTML.
import { stayConnected } from "/pages.js";

const MOST_LINES = 300;
const KNOWN_ROOMS = ["lobby", "tea", "music"];

const $ = (id) => document.getElementById(id);
const room = location.pathname.split("/").at(-1);
const [talk, said, text, naming] = ["talk", "said", "text", "naming"].map($);
const send = $("composer").querySelector("button");

let me = null;
let last = null; // what was shown last
let unread = 0;

// ---- the connection ------------------------------------------------------------------------------------------------

const receive = {
  welcome({ nick, history }) { // again after each reconnection: what was missed is in it
    me = nick;
    last = null;
    said.replaceChildren();
    history.forEach(show);
    talk.scrollTop = talk.scrollHeight;
    refresh();
  },
  people({ people }) {
    $("people").replaceChildren(...people.map((nick) => {
      const item = element("li", "", null, nick);
      item.append(face(nick), element("span", "name", nick));
      if (nick === me) item.append(element("span", "you", "you"));
      return item;
    }));
    $("count").textContent = people.length === 1 ? "only you" : `${people.length} people`;
  },
  said(message) {
    const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
    show(message);
    if (atEnd || message.nick === me) talk.scrollTop = talk.scrollHeight;
    if (document.hidden) unread += 1;
    refresh();
  },
};

let connection = null;
let wanted = localStorage.getItem("nick"); // of this tab; others may have other names

function enter(nick) {
  wanted = nick;
  localStorage.setItem("nick", nick);
  if (connection) connection.send({ nick });
  else {
    connection = stayConnected(location.pathname, {
      opened: () => connection.send({ nick: wanted }),
      received: (message) => receive[message.type](message),
    });
  }
}

// ---- what is shown -------------------------------------------------------------------------------------------------

/** The same for everybody who sees this name. */
function hue(nick) {
  return [...nick].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
}

function element(tag, className, content, nick) {
  const node = document.createElement(tag);
  node.className = className;
  if (content) node.textContent = content;
  if (nick) node.style.setProperty("--hue", hue(nick));
  return node;
}

function face(nick) {
  const node = element("span", "face", [...nick][0].toUpperCase());
  node.ariaHidden = "true";
  return node;
}

function show(message) {
  const line = element("li", "line", null, message.nick);
  const more = last?.nick === message.nick && message.at - last.at < 120;
  line.classList.toggle("mine", message.nick === me);
  line.classList.toggle("more", more);
  const head = element("span", "head");
  const at = new Date(message.at * 1000);
  const time = element("time", "", at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" }));
  time.dateTime = at.toISOString();
  head.append(element("span", "who", message.nick), time);
  line.append(face(message.nick), head, element("span", "text", message.text));
  said.append(line);
  if (said.children.length > MOST_LINES) said.firstChild.remove();
  last = message;
}

function refresh() {
  $("empty").hidden = said.children.length > 0;
  document.title = `${unread ? `(${unread}) ` : ""}#${room} · Chat`;
  send.disabled = !text.value.trim();
}

$("room").textContent = room;
$("rooms").append(...[...new Set([...KNOWN_ROOMS, room])].map((name) => {
  const item = element("li", "");
  const link = element("a", "", name);
  link.href = `/room/${name}`;
  if (name === room) link.ariaCurrent = "page";
  item.append(link);
  return item;
}));

// ---- what people do ------------------------------------------------------------------------------------------------

text.addEventListener("input", refresh);

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!text.value.trim()) return;
  if (connection.send({ say: text.value })) text.value = ""; // else it stays until there is a connection
  text.focus();
  refresh();
});

$("go").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("other").value.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  if (name) location.href = `/room/${name}`;
});

$("rename").addEventListener("click", () => {
  $("nick").value = me ?? "";
  naming.showModal();
});

naming.addEventListener("close", () => {
  if ($("nick").value.trim()) enter($("nick").value.trim());
  else if (!me) enter("Guest");
  text.focus();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) unread = 0;
  refresh();
});

refresh();
if (wanted) enter(wanted);
else naming.showModal();

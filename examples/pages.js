"use strict";

// What the pages share: a WebSocket that comes back, and the pill that says how it is.

const RETRY_FIRST = 300; // ms
const RETRY_MOST = 5000;

/**
 * Connect, and again whenever the connection is lost, after longer and longer random delays. `opened()` is called each
 * time, and `received(data)` with each message, which is JSON. `send(data)` returns whether there was a connection.
 */
export function stayConnected(path, { opened = () => {}, received }) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  let socket = null;
  let delay = RETRY_FIRST;
  let timer = 0;

  function connect() {
    clearTimeout(timer);
    show("connecting", "Connecting…");
    socket = new WebSocket(url);
    socket.onopen = () => {
      delay = RETRY_FIRST;
      show("open", "Live");
      opened();
    };
    socket.onmessage = (event) => received(JSON.parse(event.data));
    socket.onclose = (event) => {
      socket = null;
      show("waiting", event.code === 1001 ? "Server restarts…" : "Reconnecting…");
      timer = setTimeout(connect, delay * (0.5 + Math.random())); // not all pages at the same moment
      delay = Math.min(delay * 1.7, RETRY_MOST);
    };
  }

  function hurry() {
    if (!socket && !document.hidden) connect();
  }
  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);
  connect();
  return {
    send(data) {
      const open = socket?.readyState === WebSocket.OPEN;
      if (open) socket.send(JSON.stringify(data));
      return open;
    },
  };
}

function show(state, text) {
  document.body.dataset.state = state;
  document.getElementById("state").textContent = text;
}

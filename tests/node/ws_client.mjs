// A client: `node ws_client.mjs NODE_DIRECTORY`. Reads lines of JSON from standard input, each a connection to make:
//   uri, protocols, options   what ws is given; `options.ca` is the name of a file
//   say                       messages, sent at once; a list is one message in fragments, {"hex": ...} a binary one
//   expect                    how many messages to wait for
//   ping                      payload of a Ping whose Pong to wait for too
//   close, terminate          then [code, reason], or true; without either the server ends the connection
// and prints a line of JSON for each when it has ended: extensions, protocol, messages, pings, pongs, code, reason, error.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const { WebSocket } = createRequire(join(process.argv[2], "package.json"))("ws");

const decode = (message) => (typeof message === "string" ? message : Buffer.from(message.hex, "hex"));

function say(socket, message) {
  if (Array.isArray(message)) {
    message.forEach((part, index) => socket.send(decode(part), { fin: index === message.length - 1 }));
  } else {
    socket.send(decode(message));
  }
}

function talk({ uri, protocols = [], options = {}, say: messages = [], expect = 0, ping, close, terminate }) {
  if (options.ca) options.ca = readFileSync(options.ca);
  const socket = new WebSocket(uri, protocols, options);
  const seen = { messages: [], pings: [], pongs: [], error: null };

  function proceed() {
    if (seen.messages.length < expect || (ping !== undefined && !seen.pongs.length)) return;
    if (terminate) socket.terminate();
    else if (close) socket.close(...close);
  }

  socket.on("open", () => {
    Object.assign(seen, { extensions: socket.extensions, protocol: socket.protocol });
    if (ping !== undefined) socket.ping(ping);
    for (const message of messages) say(socket, message);
    proceed();
  });
  socket.on("message", (data, isBinary) => {
    seen.messages.push(isBinary ? { hex: data.toString("hex") } : data.toString());
    proceed();
  });
  socket.on("ping", (data) => seen.pings.push(data.toString()));
  socket.on("pong", (data) => {
    seen.pongs.push(data.toString());
    proceed();
  });
  socket.on("error", (error) => { seen.error = error.message; });
  return new Promise((resolve) => {
    socket.on("close", (code, reason) => resolve({ ...seen, code, reason: reason.toString() }));
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await talk(JSON.parse(line))));
}

// Servers: `node ws_server.mjs NODE_DIRECTORY OPTIONS`, OPTIONS being a JSON list of what each is given. Prints their
// ports, then a line of JSON for the end of each connection; ends when its standard input does. They answer as `answer`
// of tests/asyncio/conversations.py does: echo, and commands that begin with a slash.
import { createServer as createTcp } from "node:http";
import { createServer as createTls } from "node:https";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [directory, list] = process.argv.slice(2);
const { WebSocketServer } = createRequire(join(directory, "package.json"))("ws");

const commands = {
  "/close": (socket, code, ...reason) => socket.close(Number(code), reason.join(" ")),
  "/terminate": (socket) => socket.terminate(),
  "/ping": (socket) => {
    socket.once("pong", (data) => socket.send(data.toString() === "of the server" ? "pinged" : "wrong pong"));
    socket.ping("of the server");
  },
  "/fragments": (socket) => {
    for (const part of ["fr", "äg", ""]) socket.send(part, { fin: false });
    socket.send("ments", { fin: true });
  },
  "/large": (socket, size) => socket.send(Buffer.alloc(Number(size))),
  "/protocol": (socket) => socket.send(socket.protocol),
};

function onConnection(socket) {
  socket.on("message", (data, isBinary) => {
    const [command, ...words] = isBinary ? [""] : data.toString().split(" ");
    if (command in commands) commands[command](socket, ...words);
    else socket.send(data, { binary: isBinary });
  });
  socket.on("error", () => {});
  socket.on("close", (code, reason) => console.log(JSON.stringify([code, reason.toString()])));
}

const ports = [];
for (const { key, cert, ...options } of JSON.parse(list)) {
  const server = key ? createTls({ key: readFileSync(key), cert: readFileSync(cert) }) : createTcp();
  new WebSocketServer({ ...options, server }).on("connection", onConnection);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  ports.push(server.address().port);
}
console.log(JSON.stringify(ports));
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();

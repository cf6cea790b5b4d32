// Echo server: `node ws_server.mjs NODE_DIRECTORY COMPRESSION`. Prints its port; ends when its standard input does.
import { createRequire } from "node:module";
import { join } from "node:path";

const [directory, compression] = process.argv.slice(2);
const { WebSocketServer } = createRequire(join(directory, "package.json"))("ws");

const options = compression === "on" ? { threshold: 0 } : false;
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: options });
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on("error", () => {});
});
server.on("listening", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();

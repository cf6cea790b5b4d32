// Echo client: `node ws_client.mjs NODE_DIRECTORY URI COMPRESSION`. Sends, compares, closes; exits with 0 if all is well.
import { createRequire } from "node:module";
import { join } from "node:path";

const [directory, uri, compression] = process.argv.slice(2);
const { WebSocket } = createRequire(join(directory, "package.json"))("ws");

const messages = ["", "hello", "ünïcödé 🐍", "x".repeat(70_000), Buffer.from([0, 255, 1]), Buffer.alloc(300_000, 7)];
const socket = new WebSocket(uri, { perMessageDeflate: compression === "on" });
let next = 0;
let pongs = 0;

function fail(why) {
  console.error(why);
  process.exit(1);
}

socket.on("error", fail);
socket.on("pong", (data) => {
  if (data.toString() !== "are you there") fail("wrong pong");
  pongs += 1;
});
socket.on("open", () => {
  if ((socket.extensions !== "") !== (compression === "on")) fail(`extensions: ${socket.extensions}`);
  socket.ping("are you there");
  for (const message of messages) {
    const middle = Math.floor(message.length / 2);
    if (typeof message === "string" && message.length === 70_000) { // in fragments
      socket.send(message.slice(0, middle), { fin: false });
      socket.send(message.slice(middle), { fin: true });
    } else {
      socket.send(message);
    }
  }
});
socket.on("message", (data, isBinary) => {
  const expected = messages[next++];
  if (isBinary !== (typeof expected !== "string")) fail("wrong type");
  if (Buffer.compare(data, Buffer.from(expected)) !== 0) fail(`message ${next} differs`);
  if (next === messages.length) socket.close(4321, "done");
});
socket.on("close", (code, reason) => {
  if (code !== 4321 || reason.toString() !== "done" || pongs !== 1 || next !== messages.length) {
    fail(`closed with ${code} ${reason} after ${next} messages, ${pongs} pongs`);
  }
  process.exit(0);
});
setTimeout(() => fail("timed out"), 15_000);

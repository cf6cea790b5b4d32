// Two clients of examples/uvicorn/socketio_rooms.py: `node socketio_client.mjs NODE_DIRECTORY PORT TRANSPORTS`, where
// TRANSPORTS is "websocket" or "polling,websocket". They meet in a room and talk; prints what they saw as JSON, and ends.
import { createRequire } from "node:module";
import { join } from "node:path";

const [, , directory, port, transports] = process.argv;
const { io } = createRequire(join(directory, "package.json"))("socket.io-client");

function client(name) {
  return io(`http://127.0.0.1:${port}`, {
    auth: name && { name },
    transports: transports.split(","),
    forceNew: true,
    reconnection: false,
  });
}

const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...values) => resolve(values)));

const nobody = client();
const [refusal] = await once(nobody, "connect_error");

const ann = client("ann");
await once(ann, "connect");
const bob = client("bob");
await once(bob, "connect");
for (const { io } of [ann, bob]) {
  if (io.engine.transport.name !== "websocket") await once(io.engine, "upgrade");
}

const counts = [await ann.emitWithAck("join", "lobby")];
const joined = once(ann, "joined");
counts.push(await bob.emitWithAck("join", "lobby"));

const said = [];
const all = new Promise((resolve) => {
  ann.on("said", (name, what) => {
    said.push([name, Buffer.isBuffer(what) ? { hex: what.toString("hex") } : what]);
    if (said.length === 102) resolve();
  });
});
bob.emit("say", "lobby", { text: "grüße", numbers: [1, 2.5, null] });
bob.emit("say", "lobby", Buffer.from([0, 1, 254, 255]));
for (let number = 0; number < 100; number++) bob.emit("say", "lobby", "x".repeat(number * 50));
await all;

const transport = [ann, bob].map(({ io }) => io.engine.transport.name);
const gone = once(ann, "disconnect");
ann.disconnect();
bob.disconnect();
const seen = { refusal: refusal.message, counts, joined: await joined, said, transport, gone: (await gone)[0] };
process.stdout.write(JSON.stringify(seen), () => process.exit(0));

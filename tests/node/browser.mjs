// A page's WebSocket: `node browser.mjs NODE_DIRECTORY CHROMIUM PAGE COMPRESSED PLAIN USER_DATA_DIR`, the middle three
// being addresses of a page and of two servers that answer as `answer` of tests/asyncio/conversations.py does. Prints a
// line of JSON with what the page saw, then "null" when its last connection waits for the server to go, then how that
// connection ended.
import { createRequire } from "node:module";
import { join } from "node:path";

const [directory, executablePath, address, compressed, plain, userDataDir] = process.argv.slice(2);
const { chromium } = createRequire(join(directory, "package.json"))("playwright-core");

const context = await chromium.launchPersistentContext(userDataDir, {
  executablePath,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
context.setDefaultTimeout(20_000);
const page = await context.newPage();
await page.goto(address);

// In the page: `ends(socket)` and `Talk`, a socket whose messages can be awaited.
await page.evaluate(() => {
  window.ends = (socket) => new Promise((resolve) => {
    socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
  });
  window.Talk = class {
    constructor(url, protocols = ["last", "good"], binaryType = "arraybuffer") {
      this.socket = new WebSocket(url, protocols);
      this.socket.binaryType = binaryType;
      this.opened = new Promise((resolve) => { this.socket.onopen = resolve; });
      this.ended = ends(this.socket);
      this.messages = [];
      this.waiting = null;
      this.socket.onmessage = ({ data }) => {
        this.messages.push(data);
        this.waiting?.();
      };
    }

    async next() {
      if (!this.messages.length) await new Promise((resolve) => { this.waiting = resolve; });
      return this.messages.shift();
    }

    async ask(message) {
      await this.opened;
      this.socket.send(message);
      return this.next();
    }
  };
});

async function echoes([url, binaryType]) {
  const wrong = [];
  const talk = new Talk(url, undefined, binaryType);
  const equal = (one, two) => one.length === two.length && one.every((byte, index) => byte === two[index]);
  for (const size of [0, 1, 125, 126, 127, 65_535, 65_536, 2 ** 20]) {
    const text = "ünïcödé 🐍 ".repeat(Math.floor(size / 17)) + "x".repeat(size % 17); // of so many bytes
    if (await talk.ask(text) !== text) wrong.push(["text", size]);
    const bytes = Uint8Array.from({ length: size }, (_, index) => (index * index) >> 3);
    for (const [name, message] of Object.entries({ view: bytes, buffer: bytes.buffer, blob: new Blob([bytes]) })) {
      const echo = await talk.ask(message);
      const buffer = binaryType === "blob" ? await echo.arrayBuffer() : echo;
      if (!(buffer instanceof ArrayBuffer) || !equal(new Uint8Array(buffer), bytes)) wrong.push([name, size]);
    }
  }
  const { extensions, protocol } = talk.socket;
  const answers = [await talk.ask("/fragments"), await talk.ask("/ping")];
  talk.socket.close();
  return { wrong, extensions, protocol, answers, ...await talk.ended };
}

async function many(url) {
  const talk = new Talk(url);
  await talk.opened;
  const sent = Array.from({ length: 3000 }, (_, index) => `${index} ${"ä".repeat(index % 100)}`);
  for (const message of sent) talk.socket.send(message);
  const received = [];
  for (const _ of sent) received.push(await talk.next());
  talk.socket.close();
  await talk.ended;
  return received.every((message, index) => message === sent[index]);
}

async function buffered(url) {
  const talk = new Talk(`${url}sink`);
  await talk.opened;
  const amounts = [];
  for (let count = 0; count < 16; count += 1) talk.socket.send(new Uint8Array(2 ** 20));
  amounts.push(talk.socket.bufferedAmount);
  const total = await talk.ask("end");
  while (talk.socket.bufferedAmount) await new Promise((resolve) => { setTimeout(resolve, 1); });
  talk.socket.close();
  await talk.ended;
  return { total: Number(total), amount: amounts[0] };
}

async function closes([url, list]) {
  const seen = [];
  for (const [code, reason] of list) {
    const talk = new Talk(url);
    await talk.opened;
    talk.socket.send(`/close ${code} ${reason}`.trimEnd());
    seen.push(await talk.ended);
  }
  for (const [code, reason] of list.filter(([code]) => code === 1000 || code >= 3000)) {
    const talk = new Talk(url);
    await talk.opened;
    talk.socket.close(code, reason);
    seen.push(await talk.ended);
  }
  const large = new Talk(url);
  await large.opened;
  large.socket.send(new Uint8Array(2 ** 20 + 1));
  const other = new Talk(url, ["other"]);
  return { seen, large: await large.ended, refused: await other.ended };
}

const CLOSES = [[1000, ""], [1001, "going"], [1011, ""], [3000, "registered"], [4999, "priväte"]];
console.log(JSON.stringify({
  compressed: await page.evaluate(echoes, [compressed, "arraybuffer"]),
  plain: await page.evaluate(echoes, [plain, "blob"]),
  many: [await page.evaluate(many, compressed), await page.evaluate(many, plain)],
  buffered: [await page.evaluate(buffered, compressed), await page.evaluate(buffered, plain)],
  closes: await page.evaluate(closes, [compressed, CLOSES]),
}));
await page.evaluate(async (url) => {
  window.last = new Talk(url);
  await window.last.opened;
}, compressed);
console.log("null");
console.log(JSON.stringify(await page.evaluate(() => window.last.ended)));
await context.close();
process.exit(0);

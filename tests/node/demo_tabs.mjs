// Two tabs of the demo page: `node demo_tabs.mjs NODE_DIRECTORY CHROMIUM URL USER_DATA_DIR`. Reads lines from standard
// input: "restarting" when the server is about to end. Prints what it saw as lines; exits with 0 if all is well.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";
import assert from "node:assert/strict";

const [directory, executablePath, url, userDataDir] = process.argv.slice(2);
const { chromium } = createRequire(join(directory, "package.json"))("playwright-core");

const context = await chromium.launchPersistentContext(userDataDir, {
  executablePath,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const outside = [];
const errors = [];
context.on("request", (request) => { if (!request.url().startsWith(url) && !request.url().startsWith("data:")) outside.push(request.url()); });
context.setDefaultTimeout(20_000);

async function open() {
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(url);
  await page.waitForSelector('body[data-state="open"]');
  return page;
}

const one = await open();
const two = await open();

// what one types, the other sees, key by key and escaped
await one.type("#text", "<b>half");
await two.waitForFunction(() => document.querySelector("#drafts .bubble")?.textContent === "<b>half");
await one.type("#text", " a line</b>");
await one.keyboard.press("Enter");
for (const page of [one, two]) {
  await page.waitForFunction(() => document.querySelector("#said .bubble")?.textContent === "<b>half a line</b>");
}
assert.equal(await two.locator("#drafts .bubble").count(), 0);
assert.equal(await two.locator("#said b").count(), 0);
assert.equal(await one.locator("#said .mine").count(), 1);
assert.equal(await two.locator("#said .mine").count(), 0);

// live figures
await one.waitForFunction(() => document.getElementById("people-value").textContent === "2");
await one.waitForFunction(() => Number(document.getElementById("rate-value").textContent) > 0);
await one.waitForFunction(() => Number(document.getElementById("trip-value").textContent) > 0);
const drawn = await one.evaluate(() => [...document.querySelectorAll("canvas")].map((canvas) =>
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0)));
assert.deepEqual(drawn, [true, true, true]);

// a phone
await two.setViewportSize({ width: 390, height: 844 });
assert.equal(await two.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
assert.equal(await two.locator("#text").isVisible(), true);

// the server goes and comes back
console.log("talked");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
await one.waitForSelector('body[data-state="waiting"]');
console.log("offline");
await lines.next();
await one.waitForSelector('body[data-state="open"]');
await two.waitForSelector('body[data-state="open"]');
await two.fill("#text", "back again");
await two.keyboard.press("Enter");
await one.waitForFunction(() => [...document.querySelectorAll("#said .bubble")].at(-1)?.textContent === "back again");

assert.deepEqual(outside, []);
assert.deepEqual(errors, []);
await context.close();
console.log("back");
process.exit(0);

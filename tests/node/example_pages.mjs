// The pages of examples/ in a browser: `node example_pages.mjs NODE_DIRECTORY CHROMIUM USER_DATA_DIR SCREENSHOTS
// EXAMPLE=URL...` goes through the examples named, prints a line of JSON with what each page showed, and leaves
// pictures of each in the directory SCREENSHOTS. EXAMPLE is "dashboard", "demo", "talk", which is the chat, or "chat", which is
// that and a restart of the server: it reads a line when it has told what was said, another when it is offline.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const [directory, executablePath, userDataDir, screenshots, ...examples] = process.argv.slice(2);
const { chromium } = createRequire(join(directory, "package.json"))("playwright-core");
const SIZES = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };

const context = await chromium.launchPersistentContext(userDataDir, {
  executablePath,
  headless: true,
  ignoreHTTPSErrors: true, // the authority of the tests is nobody's
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
context.setDefaultTimeout(20_000);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const report = (seen) => console.log(JSON.stringify(seen));

let allowed = ""; // where requests may go
const outside = [];
const errors = [];
const sockets = [];
context.on("request", (request) => {
  if (!request.url().startsWith(allowed) && !request.url().startsWith("data:")) outside.push(request.url());
});

async function open(url) {
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => { // what the Content-Security-Policy forbids, and what was not found
    if (message.type() === "error" && !/WebSocket|ERR_CONNECTION/.test(message.text())) errors.push(message.text());
  });
  page.on("websocket", (socket) => sockets.push(socket.url()));
  await page.goto(url);
  return page;
}

const live = (page) => page.waitForSelector('body[data-state="open"]');
const texts = (page, selector) => page.locator(selector).allTextContents();
const shows = (page, selector, text) => page.waitForFunction(
  ([where, what]) => [...document.querySelectorAll(where)].some((node) => node.textContent === what), [selector, text],
);

const painted = (page) => page.evaluate(() => new Promise((resolve) => {
  requestAnimationFrame(() => requestAnimationFrame(resolve));
}));

/** Pictures on a phone and a desktop, light and dark; nothing is too wide, too faint, or without a name. */
async function look(page, name) {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"]) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await painted(page);
      await page.screenshot({ path: join(screenshots, `${name}-${size}-${colorScheme}.png`) });
      assert.deepEqual(await page.evaluate(faults), [], `${name} on a ${size}, ${colorScheme}`);
    }
  }
  await page.setViewportSize(SIZES.desktop);
}

/** In the page: what is wrong with it. Contrast is that of WCAG 2: 4.5 to 1. */
function faults() {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push(`${document.documentElement.scrollWidth} px wide`);
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const pixel = canvas.getContext("2d", { willReadFrequently: true });
  const luminance = (colours) => { // of what one sees when these are painted over each other
    pixel.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      pixel.fillStyle = colour;
      pixel.fillRect(0, 0, 1, 1);
    }
    const [red, green, blue] = [...pixel.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility({ checkVisibilityCSS: true, checkOpacity: true })) continue;
    if (node.matches(":disabled, :disabled *")) continue;
    if (node.matches("button, input, a, canvas")) {
      const name = node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.textContent;
      if (!name.trim()) found.push(`no name: ${node.outerHTML}`);
    }
    const own = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
    if (!own || node.closest("svg, noscript")) continue;
    const around = [];
    for (let each = node; each; each = each.parentElement) around.unshift(getComputedStyle(each).backgroundColor);
    const [ink, ground] = [luminance([...around, getComputedStyle(node).color]), luminance(around)];
    const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${node.outerHTML}`);
  }
  return found;
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.keyboard.press("Enter");
}

/** Two in a room, one in another. */
async function talk(url) {
  const one = await open(url); // the first room, by a redirect
  await one.waitForSelector("#naming[open]");
  await look(one, "chat-name");
  await one.fill("#nick", "Ada");
  await one.keyboard.press("Enter");
  await live(one);
  await shows(one, "#count", "only you");
  const two = await open(`${url}room/lobby`); // the browser remembers the name, and the room has one of it
  await shows(two, "#people .name", "Ada 2");
  await two.click("#rename");
  await two.fill("#nick", "Grace");
  await two.keyboard.press("Enter");
  await shows(one, "#people .name", "Grace");
  await say(one, "<b>Hello</b>, Grace!");
  await shows(two, "#said .text", "<b>Hello</b>, Grace!");
  await say(two, "Hello, Ada. Is this fast?");
  await shows(one, "#said .text", "Hello, Ada. Is this fast?");
  await say(one, "As fast as I can type 🐍");
  await say(one, "And a longer line, so that one sees how the bubbles wrap when somebody has more to say than usual.");
  await say(two, "I see it.");
  await shows(one, "#said .text", "I see it.");
  const other = await open(`${url}room/tea`);
  await live(other);
  await shows(other, "#count", "only you");
  await look(one, "chat");
  await two.reload(); // what was said is still there
  await shows(two, "#said .text", "I see it.");
  report({
    addresses: [one.url(), other.url()],
    people: await texts(one, "#people .name"),
    said: await texts(two, "#said .text"),
    mine: await texts(one, "#said .mine .text"),
    bold: await one.locator("#said b").count(),
    elsewhere: await texts(other, "#said .text"),
  });
  return [one, two];
}

/** The server goes and comes back. */
async function chat(url) {
  const [one, two] = await talk(url);
  await lines.next();
  await Promise.all([one, two].map((page) => page.waitForSelector('body[data-state="waiting"]')));
  await one.fill("#text", "written meanwhile");
  report("offline");
  await lines.next();
  await Promise.all([live(one), live(two)]);
  await shows(one, "#count", "2 people");
  await one.press("#text", "Enter");
  await shows(two, "#said .text", "written meanwhile");
  report({ people: (await texts(two, "#people .name")).sort(), last: (await texts(two, "#said .text")).at(-1) });
}

async function dashboard(url) {
  const page = await open(url);
  const picture = () => page.evaluate(() => [...document.querySelectorAll("canvas")].map((each) => each.toDataURL()));
  const drawn = () => page.evaluate(() => [...document.querySelectorAll("canvas")].map((canvas) =>
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0)));
  const number = async () => Number((await page.textContent("#number")).replace(",", ""));
  const later = (than) => page.waitForFunction(
    (n) => Number(document.getElementById("number").textContent.replace(",", "")) > n, than,
  );
  await live(page);
  await page.waitForFunction(() => Number(document.getElementById("rate").textContent) > 0);
  const [before, first] = [await picture(), await number()];
  await later(first + 2);
  const after = await picture();
  const second = await open(url);
  await shows(page, "#watchers", "2");
  await second.close();
  await shows(page, "#watchers", "1");
  await look(page, "dashboard");

  await page.click("#pause");
  await painted(page); // what was on its way
  const [paused, [resting]] = [await number(), await picture()];
  const third = await open(url); // "watchers" is not paused, so samples have come when it tells of the third
  await shows(page, "#watchers", "2");
  await third.close();
  const still = (await number()) === paused && (await picture())[0] === resting;
  await page.click("#pause");
  await later(paused);
  report({
    drawn: await drawn(),
    moving: before.map((image, i) => image !== after[i]),
    still,
    rate: Number(await page.textContent("#rate")),
    missed: await page.textContent("#missed"),
    frequency: Number(await page.textContent("#frequency")),
  });
}

async function demo(url) {
  const [one, two] = [await open(url), await open(url)];
  await Promise.all([live(one), live(two)]);
  await say(one, "over the wire");
  await shows(two, "#said .bubble", "over the wire");
  await shows(one, "#people-value", "2");
  await look(one, "demo");
  report({ people: await one.textContent("#people-value"), said: await texts(two, "#said .bubble") });
}

const goThrough = { chat, dashboard, demo, talk };
for (const example of examples) {
  const [name, url] = example.split(/=(.*)/);
  allowed = url;
  await goThrough[name](url);
  for (const page of context.pages()) await page.close();
}
assert.deepEqual(outside, []);
assert.deepEqual(errors, []);
report({ sockets: [...new Set(sockets)] });
await context.close();
process.exit(0);

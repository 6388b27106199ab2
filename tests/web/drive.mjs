// Opens the page in Chromium, uploads a file as its user would, downloads it again, and prints what happened as JSON.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const { chromium, scratch, url, token, bucket, file } = JSON.parse(process.argv[2]);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: join(scratch, "profile"),
  // It ends with the pipe, however this process ends.
  pipe: true,
  timeout: 120_000,
  protocolTimeout: 120_000,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--no-proxy-server"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  // Slow enough that there is a progress to see.
  await page.emulateNetworkConditions({ upload: 1_500_000, download: -1, latency: 0 });
  const requests = await watch(page, new URL(url).origin);
  await page.goto(url);
  await page.evaluate((token) => {
    sessionStorage.setItem("token", token);
    window.progress = [];
    const bar = document.getElementById("bar");
    new MutationObserver(() => window.progress.push(bar.value)).observe(bar, { attributes: true });
  }, token);

  await page.select("#bucket", bucket);
  await (await page.$("#file")).uploadFile(file);
  await page.waitForFunction(() => document.getElementById("status").textContent);
  const status = await page.$eval("#status", (element) => element.textContent);
  const uploading = requests.splice(0);
  const result = { status, uploading, progress: await page.evaluate(() => window.progress) };
  if (status.startsWith("uploaded")) {
    result.saved = await save(page);
    requests.splice(0);
    result.fetched = await page.evaluate(readAgain);
    result.fetching = requests.splice(0);
  }
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}

// What the browser asks of other origins, preflights included, with the headers it really sends.
async function watch(page, own) {
  const session = await page.createCDPSession();
  const requests = [];
  const known = new Map();
  const about = (id) => known.get(id) ?? known.set(id, {}).get(id);
  session.on("Network.requestWillBeSent", ({ requestId, type, request }) => {
    const found = Object.assign(about(requestId), { type, method: request.method });
    if (new URL(request.url).origin !== own) requests.push(found);
  });
  session.on("Network.requestWillBeSentExtraInfo", ({ requestId, headers }) => {
    about(requestId).headers = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  });
  session.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) => {
    about(requestId).status = statusCode;
  });
  session.on("Network.loadingFailed", ({ requestId, corsErrorStatus }) => {
    about(requestId).refused = corsErrorStatus?.corsError ?? "failed";
  });
  await session.send("Network.enable");
  return requests;
}

// The user follows the link: the browser saves the file under the name that the store gives it.
async function save(page) {
  const session = await browser.target().createCDPSession();
  const directory = join(scratch, "downloads");
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: directory, eventsEnabled: true });
  let name;
  const ended = new Promise((resolve, reject) => {
    session.on("Browser.downloadWillBegin", ({ suggestedFilename }) => (name = suggestedFilename));
    session.on("Browser.downloadProgress", ({ state }) => {
      if (state === "completed") resolve();
      if (state === "canceled") reject(new Error("the browser gave up the download"));
    });
    setTimeout(() => reject(new Error("the link was followed and nothing was downloaded")), 120_000).unref();
  });
  await page.click("#download");
  await ended;
  return { name, sha256: sha256(readFileSync(join(directory, name))) };
}

// A script of the page reads the same URL.
async function readAgain() {
  try {
    const response = await fetch(document.getElementById("download").href);
    const digest = await crypto.subtle.digest("SHA-256", await response.arrayBuffer());
    const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
    return { status: response.status, sha256: hex };
  } catch (error) {
    return { error: String(error) };
  }
}

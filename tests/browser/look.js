// SPDX-License-Identifier: Apache-2.0
// Looks at pages in headless Chromium and says what it saw, as JSON.
//
//   node look.js CHROMIUM < pages.json > seen.json
//
// pages.json is a list of {name, file, axe}. One browser for all of them. Every page is
// opened with scripts forbidden, as it must work then; axe-core, which is a script,
// looks at a second copy, in windows of the widths in axe.
"use strict";

const fs = require("node:fs");
const { pathToFileURL } = require("node:url");
const puppeteer = require("puppeteer-core");

const AXE = require.resolve("axe-core/axe.min.js");
const WIDTHS = [375, 1440];
// A4 without the margins of the page's own @page rule, in CSS pixels.
const PAPER = 687;

const wide = () => ({
  page: document.documentElement.scrollWidth,
  window: window.innerWidth,
});

// What a reader sees: the whole text, every figure with the place it says it is from,
// and each cell of the claims' tables that looks like a figure but says none.
const read = () => {
  const shown = (element) => element.getClientRects().length > 0;
  const claims = document.querySelector("#section-1").parentElement;
  return {
    text: document.body.innerText,
    figures: [...document.querySelectorAll("data")]
      .filter(shown)
      .map((e) => [e.getAttribute("value"), e.innerText]),
    untraced: [...claims.querySelectorAll("td")]
      .filter((e) => !e.querySelector("data") && /^[\d∞]/.test(e.innerText))
      .map((e) => e.innerText),
    pictures: [...document.querySelectorAll("figure svg")].map((e) => {
      const box = e.getBoundingClientRect();
      return [box.width, box.height];
    }),
  };
};

// The characters that no font here can draw: they look like one that no font has.
const undrawn = () => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 24;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.font = `16px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "top";
  const look = (character) => {
    context.clearRect(0, 0, 24, 24);
    context.fillText(character, 2, 2);
    return context.getImageData(0, 0, 24, 24).data.join();
  };
  const missing = look("\u{10FFFD}");
  const characters = new Set(document.documentElement.textContent.replace(/\s/g, ""));
  return {
    characters: characters.size,
    control: look("\u{10FFFC}") === missing && look("a") !== missing,
    missing: [...characters].filter((c) => look(c) === missing),
  };
};

async function look(browser, { name, file, axe: axeWidths }) {
  const requests = [];
  const errors = [];
  const open = async (scripts) => {
    const page = await browser.newPage();
    page.on("request", (request) => requests.push(request.url()));
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => errors.push(message.text()));
    await page.setJavaScriptEnabled(scripts);
    await page.setViewport({ width: 1440, height: 900 });
    await page.goto(pathToFileURL(file).href);
    return page;
  };

  const quiet = await open(false);
  const widths = {};
  for (const width of WIDTHS) {
    await quiet.setViewport({ width, height: 900 });
    widths[width] = await quiet.evaluate(wide);
  }
  const seen = await quiet.evaluate(read);
  await quiet.emulateMediaType("print");
  await quiet.setViewport({ width: PAPER, height: 980 });
  widths.print = await quiet.evaluate(wide);
  await quiet.close();

  const live = await open(true);
  await live.addScriptTag({ path: AXE });
  const axe = [];
  for (const width of axeWidths) {
    await live.setViewport({ width, height: 900 });
    const found = await live.evaluate(() =>
      axe.run(document, { resultTypes: ["violations"] }),
    );
    axe.push({
      width,
      rules: found.passes.length,
      violations: found.violations.map(({ id, impact, nodes }) => ({
        id,
        impact,
        at: nodes.slice(0, 3).map((node) => node.html.slice(0, 200)),
      })),
    });
  }
  await live.setViewport({ width: 1440, height: 900 });
  const glyphs = await live.evaluate(undrawn);
  const same = (await live.evaluate(read)).text === seen.text;
  await live.close();
  return { name, widths, ...seen, axe, glyphs, same, requests, errors };
}

async function main() {
  const pages = JSON.parse(fs.readFileSync(0, "utf8"));
  const browser = await puppeteer.launch({
    executablePath: process.argv[2],
    // The pages are our own and reach no network: a container has no other sandbox.
    args: ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"],
  });
  try {
    const seen = [];
    for (const page of pages) seen.push(await look(browser, page));
    process.stdout.write(JSON.stringify(seen));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});

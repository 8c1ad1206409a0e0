// The extension that says when a session ends: how often it asks, when it is answered and when not.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../../binder_onprem/host/base/site/ending.js", import.meta.url), "utf8");
const PAGE = JSON.stringify({ baseUrl: "/jupyter/user/o-r-0123456789abcdef/", token: "t" });

/** Runs it; `answers` are given one after the other, "down" for none. Returns the seconds it waited after each. */
async function waits(answers) {
  const waited = [];
  let wake = null;
  const window = {};
  const context = {
    window,
    document: { getElementById: () => ({ textContent: PAGE }), documentElement: { lang: "en" } },
    navigator: { language: "en" },
    fetch: async () => {
      const answer = answers[waited.length];
      if (answer === "down") throw new TypeError("Failed to fetch");
      return { ok: answer.status === 200, status: answer.status, json: async () => answer.body };
    },
    clearTimeout: () => {},
    setTimeout: (look, milliseconds) => {
      waited.push(milliseconds / 1000);
      wake = look;
    },
  };
  vm.runInNewContext(SOURCE, context);
  const extension = (await window._JUPYTERLAB["binder-onprem-ending"].get("./extension"))();
  extension.default[0].activate();
  for (let round = 1; round <= answers.length; round++) {
    while (waited.length < round) await new Promise(setImmediate);
    if (round < answers.length) wake();
  }
  return waited;
}

const usual = { status: 200, body: { ended: false, seconds: 10000, warn: 300, reason: "idle", files: true } };

test("an answer that does not come is asked for again soon, then more seldom, and soon again after one that came", async () => {
  const down = { status: 503 };
  const waited = await waits([usual, "down", "down", down, down, down, usual, "down"]);
  const about = [60, 5, 10, 15, 30, 30, 60, 5];
  waited.forEach((seconds, index) => assert.ok(seconds >= 0.8 * about[index] && seconds <= 1.2 * about[index], `${index}: ${seconds}`));
});

test("pages of one moment do not all ask at one moment", async () => {
  const first = new Set();
  for (let page = 0; page < 20; page++) first.add((await waits(["down"]))[0]);
  assert.ok(first.size > 10);
});

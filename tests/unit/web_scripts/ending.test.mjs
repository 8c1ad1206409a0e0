// The extension that says when a session ends: how often it asks, when it is answered and when not.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import vm from "node:vm";

const SOURCE = readFileSync(new URL("../../../binder_onprem/host/base/site/ending.js", import.meta.url), "utf8");
const PAGE = JSON.stringify({ baseUrl: "/jupyter/user/o-r-0123456789abcdef/", token: "t" });

/** An element of the page, as far as the notice needs one. */
function element() {
  const made = { dataset: {}, style: {}, children: [], listeners: {}, textContent: "", setAttribute() {}, addEventListener: (name, act) => (made.listeners[name] = act) };
  made.append = (child) => made.children.push(Object.assign(child, { parent: made }));
  made.remove = () => made.parent.children.splice(made.parent.children.indexOf(made), 1);
  made.querySelector = () => made.children[0];
  return made;
}

/** Runs it; `answers` are given one after the other, "down" for none. Returns the seconds it waited after each; `shown` is given what the page shows then. */
async function waits(answers, { shown = () => {}, lang = "en" } = {}) {
  const waited = [];
  const body = element();
  let wake = null;
  const window = {};
  const context = {
    window,
    document: { getElementById: () => ({ textContent: PAGE }), documentElement: { lang }, createElement: element, body },
    navigator: { language: "en" },
    fetch: async () => {
      const answer = answers[waited.length];
      if (answer === "down") throw new TypeError("Failed to fetch");
      return { ok: answer.status === 200, status: answer.status, json: async () => answer.body };
    },
    clearTimeout: () => {},
    setTimeout: (look, milliseconds) => {
      waited.push(milliseconds / 1000);
      shown(body.children[0]?.children ?? []);
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

test("a drain of its machine is told at once, with the time, again near the end, and no more when it is called off", async () => {
  const until = new Date();
  until.setHours(23, 59, 0, 0);
  const at = (body) => ({ status: 200, body: { ...usual.body, files: false, maintenance: until / 1000, ...body } });
  const soon = { reason: "maintenance", seconds: 200 };
  const said = [];
  const close = (parts) => {
    said.push(parts[0]?.textContent ?? "");
    parts.find((part) => part.textContent === "Close")?.listeners.click();
  };
  await waits([at({}), at({}), at(soon), at({ reason: "idle", seconds: 100 }), usual, at(soon), { status: 404 }], { shown: close });
  const told = "The machine of this session is to be maintained: the session runs until 23:59 at the latest. Save your work, and download what you want to keep.";
  const drained = "This session was ended for the maintenance of its machine. Open its link again: it starts on another one.";
  assert.deepEqual(said, [told, "", told, "Nobody uses this session: it ends in 2 minutes.", "", told, drained]);
});

test("in French, and with the day where it is another one", async () => {
  const said = [];
  const later = { status: 200, body: { ...usual.body, maintenance: new Date(2030, 0, 2, 14, 5) / 1000 } };
  const waited = await waits([later], { lang: "fr", shown: (parts) => said.push(parts.map((part) => part.textContent)) });
  assert.match(said[0][0], /mise en maintenance\. Fin de la session au plus tard : mercredi 2 janvier à 14:05\. Enregistrez/);
  assert.deepEqual([said[0].slice(1), waited], [["Télécharger mes fichiers modifiés", "Fermer"], [60]]);
});

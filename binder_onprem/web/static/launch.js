// The page of a launch: follows its events, shows where it is, and goes to the session.
import { follow } from "./events.js";
import { Log } from "./log.js";
import * as recent from "./recent.js";
import { sessionUrl } from "./redirect.js";
import { t } from "./strings.js";

const PHASES = ["waiting", "fetching", "building", "built", "launching"];
const ANNOUNCE_EVERY = 5000;
const settings = JSON.parse(document.getElementById("launch").textContent);
const nonce = document.querySelector("script[nonce]").nonce;
const byId = (id) => document.getElementById(id);
const page = document.querySelector(".launch");
const log = new Log(byId("log"), nonce, settings.base);
const launchKey = `binder-launch:${settings.build.split("?")[0]}?${settings.choice ?? ""}`;
const saved = recall();
const begun = saved ? saved.begun : Date.now();
let furthest = 0;
let lastAnnounced = 0;
let announcement = 0;

const HEADLINES = {
  waiting: () => t("Finding the repository"),
  fetching: () => t("Fetching its files"),
  building: () => t("Building the environment"),
  built: () => t("The image is ready"),
  launching: () => t("Starting your session"),
};
const STATES = { done: () => t("done"), current: () => t("in progress"), pending: () => t("to come"), failed: () => t("failed"), skipped: () => t("not needed") };
const ADVICE = {
  invalid_spec: () => t("Check the link: it names a provider, a repository and a branch, tag or commit."),
  unknown_provider: () => t("This site does not offer this kind of repository. Make a new link on the start page."),
  not_found: () => t("Check the spelling of the repository and of the branch, tag or commit. Private repositories are not found either."),
  ref_not_found: () => t("Check the spelling of the repository and of the branch, tag or commit. Private repositories are not found either."),
  credential_refused: () => t("A new token holds from the next launch on."),
  credential_insufficient: () => t("A new token holds from the next launch on."),
  refused: () => t("If the link is old, reload the page. Otherwise ask the administrator of this site."),
  banned: () => t("The administrator of this site can tell you why."),
  address_refused: () => t("This site does not connect to that host. The administrator can allow it."),
  untrusted: () => t("The administrator of this site can have the image signed, or built anew."),
  busy: () => t("Try again in a few minutes."),
  rate_limited: () => t("Try again in a few minutes."),
  quota: () => t("Try again when some sessions have ended."),
  provider: () => t("The host of the repository has trouble. Try again in a few minutes."),
  build: () => t("The log below says which step failed. Correct the repository, then launch it again."),
  limit: () => t("The environment needs more than this site allows. Make it smaller, or ask the administrator."),
  build_timeout: () => t("The environment takes too long to build. Fewer or prebuilt packages help."),
  cancelled: () => t("You can start it again."),
  spawn: () => t("Try again. If it fails again, a start script or the Jupyter version in the repository may be the cause."),
  spawn_timeout: () => t("Try again. If it fails again, a start script or the Jupyter version in the repository may be the cause."),
};

const stop = follow(`${settings.build}&lang=${encodeURIComponent(document.documentElement.lang)}`, saved ? saved.id : null, {
  event: receive,
  lost: (attempt) => attempt > 1 && connection(t("The connection to the server is lost. What you started goes on; trying again…")),
  back: () => connection(""),
});
const clock = setInterval(tick, 1000);
tick();
addEventListener("pagehide", stop);
byId("retry").addEventListener("click", () => {
  forget();
  location.reload();
});
byId("copylog").addEventListener("click", copy);

function receive(event, id) {
  connection("");
  if (event.phase === "ready") return ready(event);
  if (event.phase === "failed") return failed(event);
  remember(id);
  if (event.build) fullLog(event.build);
  if (event.message) log.add(event.message.endsWith("\n") ? event.message : `${event.message}\n`);
  if (PHASES.includes(event.phase)) advance(event.phase);
  queue(event);
}

function advance(phase) {
  const index = PHASES.indexOf(phase);
  if (index < furthest) return;
  const jumped = index > furthest + 1 && phase !== "launching";
  for (const [place, item] of items()) {
    if (place < index && (item.dataset.state === "pending" || item.dataset.state === "current")) {
      mark(item, item.dataset.state === "pending" && (jumped || place > furthest) ? "skipped" : "done");
    }
    if (place === index) mark(item, "current");
  }
  if (index === furthest && byId("headline").textContent === HEADLINES[phase]()) return;
  furthest = index;
  byId("headline").textContent = HEADLINES[phase]();
  announce(HEADLINES[phase](), true);
}

function items() {
  return [...document.querySelectorAll("#phases li")].map((item, place) => [place, item]);
}

function mark(item, state) {
  item.dataset.state = state;
  item.querySelector(".state").textContent = `: ${STATES[state]()}`;
  if (state === "current") item.setAttribute("aria-current", "step");
  else item.removeAttribute("aria-current");
}

function queue(event) {
  const line = byId("queue");
  const waits = Number.isFinite(event.position) && event.position > 0;
  line.hidden = !waits;
  if (!waits) return;
  const place = event.waiting_for
    ? t("Your session is number {position} of those that wait for a free place.", { position: event.position })
    : t("Your build is number {position} in the queue.", { position: event.position });
  const wait = Number.isFinite(event.estimate) && event.estimate > 0 ? ` ${t("It should start in about {time}.", { time: duration(event.estimate) })}` : "";
  line.textContent = place + wait;
  byId("headline").textContent = t("Waiting for a free place");
  announce(line.textContent);
}

function ready(event) {
  finish("ready");
  for (const [, item] of items()) if (item.dataset.state !== "skipped") mark(item, item.dataset.state === "pending" ? "skipped" : "done");
  const target = sessionUrl(event.url, event.token, settings.opening);
  try {
    localStorage.setItem(`binder-session:${new URL(event.url).pathname}`, location.pathname + location.search);
    localStorage.setItem(`binder-token:${new URL(event.url).pathname}`, event.token);
  } catch {
    // Without storage the page of an ended session cannot offer to launch it again.
  }
  recent.add(location.pathname + location.search, document.querySelector(".repo").textContent);
  byId("headline").textContent = t("Your session is ready");
  announce(t("Your session is ready"), true);
  byId("open").href = target;
  byId("ready").hidden = false;
  location.replace(target);
}

function failed(event) {
  finish("failed");
  for (const [, item] of items()) if (item.dataset.state === "current") mark(item, "failed");
  if (event.build) fullLog(event.build);
  byId("queue").hidden = true;
  byId("headline").textContent = t("The launch failed");
  const message = (event.message ?? "").trim();
  byId("failure-message").textContent = message || t("The server gave no reason.");
  const advice = ADVICE[event.code] ?? (() => (event.retryable ? t("Try again in a few minutes.") : t("If it stays like this, tell the administrator of this site.")));
  byId("failure-advice").textContent = advice();
  log.add(`\u001b[31m${message}\u001b[0m\n`);
  byId("failure").hidden = false;
  byId("failure").focus({ preventScroll: true });
  announce(`${t("The launch failed")}: ${message}`, true);
}

function finish(state) {
  page.dataset.state = state;
  clearInterval(clock);
  forget();
}

function fullLog(build) {
  if (!/^[0-9a-f]{16}$/.test(build)) return;
  const link = byId("fulllog");
  link.href = `${settings.base}api/builds/${build}/log`;
  link.hidden = false;
}

function connection(text) {
  const line = byId("connection");
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
}

// A screen reader hears every change of phase, and of the rest one line in five seconds.
function announce(text, important = false) {
  clearTimeout(announcement);
  const wait = important ? 0 : Math.max(0, lastAnnounced + ANNOUNCE_EVERY - Date.now());
  announcement = setTimeout(() => {
    lastAnnounced = Date.now();
    byId("announce").textContent = text;
  }, wait);
}

function tick() {
  byId("elapsed").textContent = clockText((Date.now() - begun) / 1000);
}

function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function duration(seconds) {
  if (seconds < 90) return t("{count} seconds", { count: Math.max(5, Math.round(seconds / 5) * 5) });
  return t("{count} minutes", { count: Math.round(seconds / 60) });
}

async function copy() {
  const button = byId("copylog");
  try {
    await navigator.clipboard.writeText(log.text);
    button.textContent = t("Copied");
  } catch {
    button.textContent = t("Copying is not allowed here");
  }
  announce(button.textContent, true);
  setTimeout(() => (button.textContent = t("Copy")), 2000);
}

// A reload of the page takes the launch up again instead of starting a second one.
function remember(id) {
  if (!id) return;
  try {
    sessionStorage.setItem(launchKey, JSON.stringify({ id: `${id.split(".")[0]}.1.0`, begun }));
  } catch {
    // Without storage a reload starts a new launch.
  }
}

function recall() {
  try {
    const value = JSON.parse(sessionStorage.getItem(launchKey));
    return value && /^[0-9a-f]{32}\.1\.0$/.test(value.id) && Number.isFinite(value.begun) ? value : null;
  } catch {
    return null;
  }
}

function forget() {
  try {
    sessionStorage.removeItem(launchKey);
  } catch {
    // nothing was kept
  }
}

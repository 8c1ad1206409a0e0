// The administrator's page: what the live stream tells, and what is asked for when it is looked at.
import { blocks, call, json, live, settings } from "./admin-api.js";
import { machine } from "./admin-host.js";
import { bytes, element, lasting, moment, table } from "./admin-table.js";
import { Log } from "./log.js";
import { t } from "./strings.js";

const byId = (id) => document.getElementById(id);
const nonce = document.querySelector("script[nonce]").nonce;
const now = () => Date.now() / 1000;
const STATES = {
  queued: () => t("queued"),
  running: () => t("running"),
  pushing: () => t("pushing"),
  built: () => t("built"),
  failed: () => t("failed"),
  cancelled: () => t("cancelled"),
};
const OPEN = ["queued", "running", "pushing"];
const PAGE = 50;
const ordersLabel = t("Orders");
let queue = { paused: false, waiting: [], running: [], maintenance: null };
let latest = [];
let found = null;
let audited = 0;

// Saying and asking.

function say(text, kind = "good") {
  byId("said").dataset.kind = kind;
  byId("said").textContent = text;
}

async function order(work, done) {
  try {
    const answer = await work();
    say(done);
    return answer;
  } catch (error) {
    say(error.message, "bad");
    return undefined;
  }
}

function ask(question) {
  const dialog = byId("ask");
  byId("ask-text").textContent = question;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true }));
}
byId("ask-yes").addEventListener("click", () => byId("ask").close("yes"));
byId("ask-no").addEventListener("click", () => byId("ask").close(""));

// Tabs: links, so that they work by keyboard and can be kept.

const LOADS = { images: images, bans: bans, audit: () => audit() };

function tab() {
  const wanted = document.querySelector(`[data-tab="${CSS.escape(location.hash.slice(1))}"]`) ? location.hash.slice(1) : "builds";
  for (const link of document.querySelectorAll("[data-tab]")) {
    if (link.dataset.tab === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    byId(link.dataset.tab).hidden = link.dataset.tab !== wanted;
  }
  LOADS[wanted]?.();
}
addEventListener("hashchange", tab);

const visible = (id) => !byId(id).hidden;
const count = (id, value) => (document.querySelector(`[data-count="${id}"]`).textContent = value ? `(${value})` : "");

// Builds.

const showBuilds = table(
  byId("builds-table"),
  [
    { label: t("State"), text: (row) => STATES[row.state]() + (row.position ? ` ${row.position}` : ""), state: (row) => row.state, title: (row) => row.message },
    { label: t("Repository"), text: (row) => row.repo_url },
    { label: t("Commit"), text: (row) => row.commit.slice(0, 12) },
    { label: t("Asked"), text: (row) => moment(row.created) },
    { label: t("Took"), text: took, number: true },
    { label: t("Remarks"), text: remarks },
  ],
  {
    key: (row) => row.id,
    empty: t("No builds."),
    caption: t("Builds"),
    ordersLabel,
    orders: (row) => [
      { label: t("Log"), name: row.repo_url, act: () => log(row) },
      ...(row.state === "queued" ? [{ label: t("To the front"), name: row.repo_url, act: () => prioritise(row) }] : []),
      OPEN.includes(row.state) ? { label: t("Cancel"), name: row.repo_url, act: () => cancel(row) } : { label: t("Rebuild"), name: row.repo_url, act: () => rebuild(row) },
    ],
  },
);

function took(row) {
  if (row.state === "queued") return "";
  return lasting((row.ended ?? now()) - (row.started ?? row.created));
}

function remarks(row) {
  return [row.fresh ? t("made anew") : "", row.front && row.state === "queued" ? t("moved to the front") : "", row.error ? row.message : ""].filter(Boolean).join(" · ");
}

function builds() {
  showBuilds(found ?? latest);
  count("builds", latest.filter((row) => OPEN.includes(row.state)).length);
}

function filter() {
  return { text: byId("builds-text").value.trim(), state: byId("builds-state").value };
}

async function search(before) {
  const asked = filter();
  if (!asked.text && !asked.state && !before) {
    found = null;
    byId("builds-more").hidden = latest.length < PAGE;
    return builds();
  }
  const query = new URLSearchParams({ ...(asked.text && { text: asked.text }), ...(asked.state && { state: asked.state }), ...(before && { before }), limit: PAGE });
  try {
    const { builds: rows } = await json("GET", `api/builds?${query}`);
    found = before ? [...(found ?? latest), ...rows] : rows;
    byId("builds-more").hidden = rows.length < PAGE;
    builds();
  } catch (error) {
    say(error.message, "bad");
  }
}
byId("builds-filter").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
byId("builds-more").addEventListener("click", () => search((found ?? latest).at(-1)?.id));

async function cancel(row) {
  if (await ask(t("Cancel the build of {repo}?", { repo: row.repo_url }))) await order(() => json("DELETE", `api/builds/${row.id}`), t("The build is cancelled."));
}

async function rebuild(row) {
  const question = t("Make the image of {repo} anew? Sessions that run stay; launches wait for the new image.", { repo: row.repo_url });
  if (await ask(question)) await order(() => json("POST", `api/builds/${row.id}/rebuild`), t("The build is queued."));
}

const prioritise = (row) => order(() => json("POST", `api/builds/${row.id}/prioritise`), t("The build is at the front."));

byId("queue-toggle").addEventListener("click", () =>
  queue.paused_since
    ? order(() => json("POST", "api/queue/resume"), t("Builds begin again."))
    : order(() => json("POST", "api/queue/pause"), t("No build begins; what runs goes on.")),
);

function queued() {
  const toggle = byId("queue-toggle");
  toggle.hidden = false;
  toggle.textContent = queue.paused_since ? t("Resume the queue") : t("Pause the queue");
  const counts = t("{running} running, {waiting} waiting", { running: queue.running.length, waiting: queue.waiting.length });
  byId("queue-state").textContent = queue.paused ? `${counts} · ${t("paused")}` : counts;
  const found = queue.maintenance;
  byId("maintenance-now").textContent = found
    ? t("In force since {since}: {mode}. {words}", { since: moment(found.since), mode: byId("maintenance-mode").querySelector(`[value="${found.mode}"]`).textContent, words: found.message })
    : t("No maintenance.");
  byId("maintenance-off").disabled = !found;
  count("maintenance", found ? "!" : "");
}

// A build's log, in the launch page's terminal.

let following = null;

async function log(row) {
  following?.abort();
  const mine = (following = new AbortController());
  const holder = element("div", { className: "log", id: "log", role: "region" });
  holder.setAttribute("aria-labelledby", "logtitle");
  byId("log").replaceWith(holder);
  byId("log-card").hidden = false;
  byId("logtitle").textContent = t("Log of {repo}", { repo: row.repo_url });
  byId("fulllog").href = `${settings.base}api/builds/${row.id}/log`;
  byId("logtitle").focus();
  const view = new Log(holder, nonce, settings.base);
  try {
    const answer = await fetch(`${settings.base}api/builds/${row.id}/log?follow=1`, { signal: mine.signal });
    for await (const line of blocks(answer.body, "\n", true)) view.add(`${line}\n`);
  } catch {
    if (!mine.signal.aborted) view.add(`${t("The connection to the server is lost.")}\n`);
  }
}
byId("log-close").addEventListener("click", () => {
  following?.abort();
  byId("log-card").hidden = true;
});

// Sessions.

const showSessions = table(
  byId("sessions-table"),
  [
    { label: t("Who"), text: (row) => row.owner ?? row.client ?? "" },
    { label: t("Repository"), text: (row) => row.link ?? row.name },
    { label: t("Since"), text: (row) => (row.ready ? moment(row.started) : t("starting")) + (row.maintenance ? ` · ${t("maintenance of its machine at {time}", { time: moment(row.maintenance) })}` : "") },
    { label: t("Last activity"), text: (row) => (row.last_activity ? t("{time} ago", { time: lasting(now() - row.last_activity) }) : "") },
    { label: t("Processors"), text: (row) => (row.cpu === null ? "" : row.cpu.toFixed(2)), number: true },
    { label: t("Memory"), text: (row) => bytes(row.memory), number: true },
    { label: t("Disk"), text: (row) => bytes(row.written), number: true },
  ],
  { key: (row) => row.name, empty: t("No sessions."), caption: t("Sessions"), ordersLabel, orders: (row) => [{ label: t("Stop"), name: row.name, act: () => stop(row) }] },
);

async function stop(row) {
  if (!(await ask(t("Stop the session {name}? Its files are lost.", { name: row.name })))) return;
  await order(() => json("DELETE", `api/sessions/${encodeURIComponent(row.name)}`), t("The session is stopped."));
}

byId("sessions-stop").addEventListener("submit", async (event) => {
  event.preventDefault();
  const repo = byId("sessions-repo").value.trim();
  if (!(await ask(t("Stop all sessions of {repo}? Their files are lost.", { repo })))) return;
  const done = await order(() => json("DELETE", `api/sessions?repo=${encodeURIComponent(repo)}`), "");
  if (done) say(t("{count} stopped, {failed} could not be stopped.", { count: done.stopped.length, failed: done.failed.length }), done.failed.length ? "bad" : "good");
});

// Images.

const showImages = table(
  byId("images-table"),
  [
    { label: t("Repository"), text: (row) => row.repo_url ?? row.reference.split("@")[0].split("/").slice(1).join("/"), title: (row) => row.reference },
    { label: t("Commit"), text: (row) => (row.commit ?? "").slice(0, 12) },
    { label: t("Size"), text: (row) => bytes(row.size), number: true },
    { label: t("Own"), text: (row) => bytes(row.own), number: true },
    { label: t("Last use"), text: (row) => moment(row.last_used) },
    { label: t("Sessions"), text: (row) => String(row.sessions), number: true },
    { label: t("Pinned"), text: (row) => (row.pinned ? t("yes") : "") },
  ],
  {
    key: (row) => row.reference,
    empty: t("No images yet."),
    caption: t("Images"),
    ordersLabel,
    orders: (row) => [
      { label: row.pinned ? t("Unpin") : t("Pin"), name: row.repo_url ?? row.id, act: () => pin(row) },
      ...(row.build ? [{ label: t("Rebuild"), name: row.repo_url, act: () => rebuild({ id: row.build, repo_url: row.repo_url }) }] : []),
      { label: t("Delete"), name: row.repo_url ?? row.id, act: () => remove(row) },
    ],
  },
);

async function images() {
  try {
    const { images: rows } = await json("GET", "api/images");
    showImages(rows);
    count("images", rows.length);
  } catch (error) {
    say(error.message, "bad");
  }
}

async function pin(row) {
  await order(() => json(row.pinned ? "DELETE" : "PUT", `api/images/${row.id}/pin`), row.pinned ? t("The image is not pinned any more.") : t("The image is pinned."));
  await images();
}

async function remove(row) {
  if (!(await ask(t("Delete the image of {repo}? The next launch builds it again.", { repo: row.repo_url ?? row.reference })))) return;
  await order(() => json("DELETE", `api/images/${row.id}`), t("The image is deleted."));
  await images();
}

// Bans and limits.

const KINDS = { spec: () => t("Link"), network: () => t("Network"), user: () => t("Account") };
const showBans = table(
  byId("bans-table"),
  [
    { label: t("Kind"), text: (row) => KINDS[row.kind]() },
    { label: t("What"), text: (row) => row.value },
    { label: t("Reason"), text: (row) => row.reason },
    { label: t("Until"), text: (row) => moment(row.until) },
    { label: t("By"), text: (row) => row.by ?? t("the configuration") },
  ],
  {
    key: (row) => row.id ?? `${row.kind} ${row.value}`,
    empty: t("No bans."),
    caption: t("Bans"),
    ordersLabel,
    orders: (row) => (row.id ? [{ label: t("Remove"), name: row.value, act: () => unban(row) }] : []),
  },
);

async function bans() {
  try {
    const [{ bans: rows }, quotas] = await Promise.all([json("GET", "api/bans"), json("GET", "api/quotas")]);
    showBans(rows);
    count("bans", rows.length);
    byId("quotas").replaceChildren(...limits(quotas));
  } catch (error) {
    say(error.message, "bad");
  }
}

/** Settings by name, as they are written. */
function pairs(values) {
  return Object.entries(values).map(([name, value]) => `${name} ${value}`).join(", ");
}

function limits(quotas) {
  const none = (value) => (value ? String(value) : t("no limit"));
  const often = (rate) => (rate ? t("{count} in {time}", { count: rate, time: lasting(quotas.launches.period) }) : t("no limit"));
  const { quota } = quotas;
  const full = quota.when_full === "wait" ? t("{count} wait, {time} at the most", { count: quota.waiting, time: lasting(quota.patience) }) : t("the launch is refused");
  const rows = [
    [t("Sessions at once"), none(quotas.sessions.total)],
    [t("Sessions of one repository"), none(quotas.sessions.per_repo)],
    ...(quotas.high_quota.length ? [[t("Sessions of one repository of many users"), `${none(quota.per_high_quota_repo)} (${quotas.high_quota.join(" ")})`]] : []),
    [t("Sessions of one account, of one address without"), `${none(quota.per_user)}, ${none(quota.per_address)}`],
    [t("Sessions of groups"), pairs(quota.per_group) || t("no limit")],
    [t("When no place is free"), full],
    ...quotas.specs.map(({ pattern, ...own }) => [t("Of single repositories"), `${pattern}: ${pairs(own)}`]),
    [t("Memory, processors and disk of a session"), `${bytes(quotas.session.memory)}, ${quotas.session.cpus}, ${bytes(quotas.session.disk)}`],
    [t("A session ends when idle, and in any case"), `${lasting(quotas.session_seconds.idle)}, ${lasting(quotas.session_seconds.age)}`],
    [t("Builds at once, waiting, time of one"), `${quotas.builds.concurrency}, ${quotas.builds.queue}, ${lasting(quotas.builds.seconds)}`],
    [t("Launches of one address"), often(quotas.launches.rate)],
    [t("Launches of one account"), often(quotas.launches.rate_per_user)],
    [t("Builds of one account or address at once"), none(quota.builds_per_user)],
    [t("Bytes of images"), bytes(quotas.images.budget)],
    [t("Only these links"), quotas.allowed.join(" ") || t("all")],
  ];
  return rows.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]);
}

async function unban(row) {
  await order(() => json("DELETE", `api/bans/${row.id}`), t("The ban is removed."));
  await bans();
}

byId("bans-add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const hours = byId("ban-hours").valueAsNumber;
  const made = { kind: byId("ban-kind").value, value: byId("ban-value").value, reason: byId("ban-reason").value, seconds: hours ? hours * 3600 : null };
  if ((await order(() => json("POST", "api/bans", made), t("The ban holds."))) !== undefined) event.target.reset();
  await bans();
});

// Maintenance.

byId("maintenance-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const hours = byId("maintenance-hours").valueAsNumber;
  const wanted = { mode: byId("maintenance-mode").value, message: byId("maintenance-en").value, message_fr: byId("maintenance-fr").value, seconds: hours ? hours * 3600 : null };
  if (wanted.mode !== "notice" && !(await ask(t("Begin the maintenance? Running sessions go on.")))) return;
  await order(() => json("PUT", "api/maintenance", wanted), t("The maintenance has begun."));
});
byId("maintenance-off").addEventListener("click", () => order(() => json("DELETE", "api/maintenance"), t("The maintenance is over.")));

// The audit.

const showAudit = table(
  byId("audit-table"),
  [
    { label: t("When"), text: (row) => moment(row.at) },
    { label: t("Who"), text: (row) => row.who },
    { label: t("From"), text: (row) => row.address },
    { label: t("Action"), text: (row) => row.action },
    { label: t("Subject"), text: (row) => row.subject },
    { label: t("Outcome"), text: (row) => row.outcome, title: (row) => JSON.stringify(row.details) },
  ],
  { key: (row) => `${row.kind}${row.number}`, empty: t("Nothing is recorded."), caption: t("Audit") },
);
let entries = [];
let older = null;

function audits(more = {}) {
  const asked = { kind: byId("audit-kind").value, who: byId("audit-who").value.trim(), action: byId("audit-action").value.trim(), ...more };
  return new URLSearchParams(asked);
}

async function audit(before) {
  try {
    const page = await json("GET", `api/audit?${audits(before ? { before } : {})}`);
    entries = before ? [...entries, ...page.entries] : page.entries;
    older = page.before;
    showAudit(entries);
    byId("audit-more").hidden = older === null;
  } catch (error) {
    say(error.message, "bad");
  }
}
byId("audit-filter").addEventListener("submit", (event) => {
  event.preventDefault();
  audit();
});
byId("audit-kind").addEventListener("change", () => audit());
byId("audit-more").addEventListener("click", () => audit(older));
byId("audit-export").addEventListener("click", () =>
  order(async () => {
    const answer = await call("GET", `api/audit/export?${audits()}`);
    const link = element("a", { href: URL.createObjectURL(await answer.blob()), download: "audit.jsonl" });
    link.click();
    URL.revokeObjectURL(link.href);
  }, t("The audit is saved.")),
);

// What changes.

const SECTIONS = {
  queue(value) {
    queue = value;
    queued();
  },
  builds(rows) {
    const fresh = new Map(rows.map((row) => [row.id, row]));
    latest = rows;
    found = found?.map((row) => fresh.get(row.id) ?? row) ?? null;
    if (!found) byId("builds-more").hidden = rows.length < PAGE;
    builds();
  },
  sessions(rows) {
    showSessions(rows);
    count("sessions", rows.length);
  },
  host: (value) => value && machine(value),
  audit({ number }) {
    // Something was ordered, here or elsewhere: what is looked at is asked for anew.
    if (audited && number !== audited) {
      if (visible("images")) images();
      if (visible("bans")) bans();
      if (visible("audit") && entries.length <= 100) audit();
    }
    audited = number;
  },
};

tab();
setInterval(builds, 5000);
live({
  event(name, value) {
    if (value?.error) say(value.error, "bad");
    else SECTIONS[name]?.(value);
  },
  lost(text) {
    byId("connection").hidden = !text;
    byId("connection").textContent = text;
  },
});

// On the page of an ended session: the link that had started it, remembered by the page of its launch.
const again = document.getElementById("again");
const session = /^(.*\/user\/(?:[^/]+\/)?([a-z0-9-]+-[0-9a-f]{16})\/)/.exec(location.pathname) ?? /^(.*\/user\/([^/]+)\/)/.exec(location.pathname);
const base = again.dataset.base;
let link = null;
let lost = "gone"; // or, where the session had a project, not at all
try {
  link = session && localStorage.getItem(`binder-session:${session[1]}`);
} catch {
  // Nothing is remembered without storage.
}
// Sessions can write to this storage too: only a launch page of this site is offered.
if (link && link.startsWith(`${base}v2/`) && !link.includes("\\")) {
  again.href = link;
  again.hidden = false;
  if (new URL(link, location.origin).searchParams.get("project")) lost = "project";
}

function show(found) {
  for (const id of ["gone", "project", "saving", "kept"]) {
    const element = document.getElementById(id);
    if (element) element.hidden = id !== found;
  }
}
show(lost);

// The token of the session, from the page of its launch: whoever has it is offered what the session had changed.
async function kept() {
  try {
    const token = session && localStorage.getItem(`binder-token:${session[1]}`);
    if (!token) return;
    const api = `${base}api/session/${encodeURIComponent(session[2])}`;
    const answer = await fetch(api, { headers: { Authorization: `token ${token}` }, cache: "no-store" });
    const state = answer.ok ? await answer.json() : {};
    if (answer.status === 404) localStorage.removeItem(`binder-token:${session[1]}`);
    if (answer.status === 404) show(lost);
    if (state.ended && !state.kept) {
      // It ended by itself a moment ago; the service's next pass keeps its files.
      show("saving");
      setTimeout(kept, 5000);
    }
    if (!state.kept) return;
    document.getElementById("until").textContent = new Date(1000 * state.kept.until).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
    document.getElementById("download").href = `${api}/files?token=${encodeURIComponent(token)}`;
    show("kept");
    document.getElementById("download").hidden = false;
  } catch {
    // Without storage, or while the service restarts, there is nothing to offer.
  }
}
kept();

// Shown by the proxy while it still has a route to the dead server: when the answer changes, it is the real page, in the reader's language.
async function look() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status !== 503) location.reload();
  } catch {
    // The service itself restarts.
  }
}
const seconds = Number(again.dataset.look);
if (seconds) setInterval(look, 1000 * seconds);

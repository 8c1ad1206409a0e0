// From what people type or paste into the form to a link and its badges. Pure; the same rules as links.py, compared by one table of cases.

const INSIDE = /^(?<repo>[^?#]+?)(?:\/-)?\/(?:tree|blob|raw|edit)\/(?<ref>[^/?#]+)(?:\/(?<path>[^?#]+))?$/;

/** Repository, ref and path (each may be "") of what was pasted. */
export function pasted(display, text) {
  const whole = text.trim();
  const detect = display.detect?.regex;
  if (!detect) return { repo: whole.replace(/\/+$/, ""), ref: "", path: "" };
  const named = new RegExp(detect, "i").exec(whole)?.groups;
  if (named?.ref) return { repo: bare(named.repo), ref: named.ref, path: "" };
  const inner = named?.repo ?? whole;
  const inside = INSIDE.exec(inner);
  if (inside) {
    const { repo, ref, path } = inside.groups;
    return { repo: bare(repo), ref: decode(ref), path: decode(path ?? "").replace(/\/+$/, "") };
  }
  return { repo: bare(inner.split("?")[0].split("#")[0].replace(/^\/+|\/+$/g, "")), ref: "", path: "" };
}

/** `v2/provider/spec?…` below the base URL, or null without a repository. */
export function launchPath(display, { repo, ref, path, kind }) {
  const found = pasted(display, repo);
  if (!found.repo) return null;
  let spec = display.repo.urlEncode ? encodeURIComponent(found.repo) : segments(found.repo);
  if (display.ref.enabled) spec += "/" + segments(ref.trim() || found.ref || display.ref.default);
  return `v2/${display.id}/${spec}${opening(path.trim() || found.path, kind)}`;
}

/** The provider whose host a pasted URL names; one that takes any URL (the chosen one before others), or null. */
export function providerOf(displays, text, chosen) {
  const url = /^https?:\/\//i.test(text.trim());
  if (!url) return null;
  const named = displays.find((display) => display.detect && new RegExp(display.detect.regex.replace(/\)\?\(\?<repo>/, ")(?<repo>"), "i").test(text.trim()));
  const any = displays.filter((display) => !display.detect && display.repo.urlEncode);
  return named ?? any.find((display) => display.id === chosen) ?? any[0] ?? null;
}

/** The link's badge in three languages of markup. */
export function badges(url, badge, label) {
  return { markdown: `[![${label}](${badge})](${url})`, html: `<a href="${html(url)}"><img src="${html(badge)}" alt="${html(label)}"></a>`, rst: `.. image:: ${badge}\n   :target: ${url}\n   :alt: ${label}` };
}

/** A link with what is chosen beyond the repository: pairs of names and values; several of a name are joined by commas. */
export function withChoice(path, pairs) {
  const joined = new Map();
  for (const [name, value] of pairs) if (value) joined.set(name, joined.has(name) ? `${joined.get(name)},${value}` : value);
  const query = [...joined].map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&");
  return query ? `${path}${path.includes("?") ? "&" : "?"}${query}` : path;
}

function opening(path, kind) {
  if (!path) return "";
  const before = { file: "/doc/tree/", lab: "/lab/tree/" }[kind];
  const where = before === undefined ? path : before + segments(path.replace(/^\/+/, ""));
  return `?urlpath=${encodeURIComponent(where)}`;
}

function segments(text) {
  return text.split("/").map(encodeURIComponent).join("/");
}

function bare(repo) {
  return repo.replace(/\.git$/, "");
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function html(text) {
  return text.replace(/[&<>"]/g, (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[character]);
}

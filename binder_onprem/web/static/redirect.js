// Where a ready session is opened. Pure: the same rules as BinderHub's page, and never outside the session's own URL.

/**
 * The session's address with what the link asked to open and the token.
 *
 * @param {string} url the session's URL, ends with "/"
 * @param {string} token the session's token
 * @param {{labpath?: string, filepath?: string, urlpath?: string}} opening the link's query; labpath wins over filepath over urlpath
 * @returns {string} an absolute URL below `url`
 */
export function sessionUrl(url, token, opening = {}) {
  const session = new URL(url);
  return withToken(inside(session, path(opening)) ?? session, token);
}

function path({ labpath, filepath, urlpath }) {
  if (labpath) return "doc/tree/" + file(labpath);
  if (filepath) return "tree/" + file(filepath);
  return strip(urlpath ?? "");
}

function file(name) {
  return encodeURI(strip(name).replace(/\/+$/, "")).replace(/[?#]/g, encodeURIComponent);
}

// Browsers drop tabs and line ends and read "\" as "/": so "/\evil" and "\t//evil" are host names to them.
function strip(text) {
  return text.replace(/[\u0000-\u001f\u007f]/g, "").replace(/^[\\/\s]+/, "");
}

function inside(session, relative) {
  // Concatenated, not resolved: "javascript:x" and "//evil" are then only odd names below the session.
  let target;
  try {
    target = new URL(session.origin + session.pathname + relative);
    // Nor by slashes that only a server decodes.
    if (decodeURIComponent(target.pathname).split(/[\\/]/).includes("..")) return null;
  } catch {
    return null;
  }
  const same = target.origin === session.origin && !target.username && !target.password;
  return same && target.pathname.startsWith(session.pathname) ? target : null;
}

function withToken(target, token) {
  const result = new URL(target);
  const pair = "token=" + encodeURIComponent(token);
  result.search = result.search ? `${result.search}&${pair}` : `?${pair}`;
  return result.href;
}

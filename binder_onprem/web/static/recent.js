// What was launched from this browser: kept in it and nowhere else. Sessions share the origin, so what is read is checked.
const KEY = "binder-recent";
const LENGTH = 8;

/** Remember a launch that worked: the path and query of its link, and the repository's name. */
export function add(path, name) {
  const link = path.replace(/([?&])lang=[^&]*&?/, "$1").replace(/[?&]$/, "");
  const others = read().filter((item) => item.path !== link);
  write([{ path: link, name }, ...others].slice(0, LENGTH));
}

/** The remembered links below this base URL, newest first. */
export function list(base) {
  return read().filter((item) => item.path.startsWith(`${base}v2/`));
}

/** Forget all. */
export function forget() {
  write([]);
}

function read() {
  try {
    const items = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(items) ? items.filter((item) => typeof item?.path === "string" && typeof item.name === "string").slice(0, LENGTH) : [];
  } catch {
    return [];
  }
}

function write(items) {
  try {
    if (items.length) localStorage.setItem(KEY, JSON.stringify(items));
    else localStorage.removeItem(KEY);
  } catch {
    // Without storage nothing is remembered.
  }
}

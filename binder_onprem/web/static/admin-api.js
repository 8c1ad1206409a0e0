// The administrator's calls: each carries the page's key, without which the cookie is worth nothing.
import { t } from "./strings.js";

export const settings = JSON.parse(document.getElementById("admin-settings").textContent);
const LONGEST_WAIT = 15000;

/** One call; throws an Error with the service's words. */
export async function call(method, path, body) {
  const headers = { "X-XSRFToken": settings.xsrf, Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`${settings.base}${path}${path.includes("?") ? "&" : "?"}lang=${document.documentElement.lang}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new Error(t("The service does not answer."));
  }
  if (answer.status === 403) {
    const { code } = await answer.json().catch(() => ({}));
    if (code === "refused") throw new Error(t("You are signed out. Load the page again to sign in."));
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).message || t("The service does not answer."));
  return answer.status === 204 ? null : answer;
}

export async function json(method, path, body) {
  const answer = await call(method, path, body);
  return answer ? answer.json() : null;
}

/** Follow the live stream for ever; EventSource cannot send the key. */
export async function live(handlers) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await call("GET", "api/events");
      attempt = 0;
      handlers.lost("");
      await events(answer.body, handlers.event);
    } catch (error) {
      if (attempt) handlers.lost(error.message);
    }
    await new Promise((done) => setTimeout(done, Math.min(LONGEST_WAIT, 1000 * 2 ** attempt)));
  }
}

async function events(stream, event) {
  for await (const block of blocks(stream, "\n\n")) {
    const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
    if (fields.event && fields.data) event(fields.event, JSON.parse(fields.data));
  }
}

/** A stream's text, cut at each separator. */
export async function* blocks(stream, separator, rest = false) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    waiting += value;
    const parts = waiting.split(separator);
    waiting = parts.pop();
    yield* parts;
  }
  if (rest && waiting) yield waiting;
}

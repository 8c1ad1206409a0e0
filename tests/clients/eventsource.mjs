// What binderbot and the actions do with the package `eventsource`: launches, prints each event, and stops the session as binderbot does.
// node eventsource.mjs <directory with node_modules> <build URL>
import { createRequire } from "node:module";
import { join } from "node:path";

const [directory, url] = process.argv.slice(2);
const { EventSource } = createRequire(join(directory, "package.json"))("eventsource");
const source = new EventSource(url);
source.onmessage = async ({ data }) => {
  const event = JSON.parse(data);
  console.log(JSON.stringify(event));
  if (event.phase !== "ready" && event.phase !== "failed") return;
  source.close();
  if (event.phase === "failed") return;
  const answer = await fetch(`${event.url}api/shutdown`, { method: "POST", headers: { Authorization: `token ${event.token}` } });
  console.log(JSON.stringify({ phase: "stopped", message: String(answer.status) }));
};
source.onerror = (error) => {
  console.log(JSON.stringify({ phase: "error", message: String(error.message) }));
  source.close();
};

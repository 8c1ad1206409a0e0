// What BinderHub's page and fancy-profiles do with @jupyterhub/binderhub-client: prints each event as a line of JSON.
// node binderhub.mjs <directory with node_modules> <build endpoint> <provider/repo/ref> <options as JSON>
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [directory, endpoint, spec, options] = process.argv.slice(2);
// The client is a page's: the little of a page that it touches.
globalThis.window = globalThis;
globalThis.document = { cookie: "", hidden: false, addEventListener() {}, removeEventListener() {} };
// It ends its stream by throwing, which a page only writes to its console.
process.on("unhandledRejection", (error) => {
  if (error?.constructor?.name !== "EventStreamClose") throw error;
});

const { BinderRepository } = await import(pathToFileURL(join(directory, "node_modules/@jupyterhub/binderhub-client/lib/client.js")));
const repository = new BinderRepository(spec, new URL(endpoint), JSON.parse(options));
for await (const event of repository.fetch()) {
  console.log(JSON.stringify(event));
  if (event.phase !== "ready" && event.phase !== "failed") continue;
  repository.close();
  break;
}

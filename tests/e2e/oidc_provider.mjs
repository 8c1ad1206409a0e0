// A certified OpenID provider (npm's oidc-provider) for the tests: any login name is let in, its groups come from a file, read each time.
//   node oidc_provider.mjs <node_modules> <port> <redirect uri> <client secret> <file with JSON: name → groups>
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, port, callback, secret, people] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const groups = () => JSON.parse(readFileSync(people, "utf8"));

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: "binder", client_secret: secret, redirect_uris: [callback], grant_types: ["authorization_code"] }],
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"], email: ["email"] },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: groups()[id] ?? [], email: `${id}@uni.example` }),
  }),
  cookies: { keys: [secret] },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));

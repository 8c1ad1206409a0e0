// Loaded into configurable-http-proxy before it starts (`node --require`).
"use strict";

const http = require("node:http");
const { IncomingMessage, Server, ServerResponse } = http;

// Who does not finish a request's head in time is cut off, and looked for often enough; node would wait a minute, and look every half of one.
const create = http.createServer;

http.createServer = (options, ...rest) =>
  typeof options === "function"
    ? create(options, ...rest)
    : create({ headersTimeout: 8000, connectionsCheckingInterval: 1000, ...options }, ...rest);

// When the server behind dies in the middle of an answer, http-proxy leaves the client's connection open for ever: a page that follows a build
// would never learn that it has to come back. Here the client's connection breaks, too.
const pipe = IncomingMessage.prototype.pipe;

IncomingMessage.prototype.pipe = function (target, ...rest) {
  if (target instanceof ServerResponse) {
    this.once("close", () => {
      if (!this.complete) target.destroy();
    });
  }
  return pipe.call(this, target, ...rest);
};

// To find a request's route the proxy decodes its path, and takes a path that cannot be decoded ("%zz", "%ff") for a failure of its own. Such a
// path has no route; the service behind says what is wrong with the link.
const decode = globalThis.decodeURIComponent;

globalThis.decodeURIComponent = (text) => {
  try {
    return decode(text);
  } catch {
    return text;
  }
};

// The same with a target that is no URL at all ("//", "http://["): it names nothing, and nobody behind could say more.
const emit = Server.prototype.emit;

Server.prototype.emit = function (event, request, response, ...rest) {
  if (event === "request" && !URL.canParse(request.url, "http://localhost")) {
    response.writeHead(400, { "Content-Type": "text/plain", "X-Content-Type-Options": "nosniff" }).end("This is not an address. Copy the link again.\n");
    return true;
  }
  return emit.call(this, event, request, response, ...rest);
};

// Sessions run what anybody has written, on the host that people log in at: what says who somebody is never reaches them. It is decided by where
// a request goes, not by its path, which may be written in many ways: the daemon and the hub are on 127.0.0.1, sessions on an address of their own.
const OURS = /^\s*(?:binder-onprem-|jupyterhub-)/;

// The address of an error page comes as a text.
const ours = (target) => (typeof target === "string" ? new URL(target) : target)?.hostname === "127.0.0.1";

function strip(options) {
  const headers = options?.headers;
  if (!headers?.cookie || ours(options)) return;
  const kept = String(headers.cookie)
    .split(";")
    .filter((cookie) => !OURS.test(cookie));
  if (kept.length) headers.cookie = kept.join(";").trim();
  else delete headers.cookie;
}

// What a session answers says nothing about the rest of the site: a service worker stays below the session's own path, so that it never answers in
// place of our pages; its pages are not counted among those of ours that may have a handle on one another; nobody is told of requests to other
// paths, whose queries hold tokens; and what says who somebody is comes from us alone.
const OF_THE_SITE = [
  "service-worker-allowed",
  "cross-origin-opener-policy",
  "clear-site-data",
  "nel",
  "report-to",
  "alt-svc",
  "strict-transport-security",
];

function humbled({ headers }) {
  for (const name of OF_THE_SITE) delete headers[name];
  const cookies = headers["set-cookie"]?.filter((cookie) => !OURS.test(cookie));
  if (cookies) headers["set-cookie"] = cookies;
}

for (const library of [require("node:http"), require("node:https")]) {
  const request = library.request;
  library.request = function (options, ...rest) {
    strip(options);
    const made = request.call(this, options, ...rest);
    return ours(options) ? made : made.once("response", humbled);
  };
}

// The machine's section of the administrator's page.
import { bytes, element, lasting, moment, table } from "./admin-table.js";
import { t } from "./strings.js";

const byId = (id) => document.getElementById(id);
const LEVELS = { ok: () => t("good"), warn: () => t("weak"), fail: () => t("broken") };

const storage = table(
  byId("host-storage"),
  [
    { label: t("Place"), text: (row) => row.place },
    { label: t("Free"), text: (row) => bytes(row.free), number: true },
    { label: t("Of"), text: (row) => bytes(row.bytes), number: true },
    { label: t("Inodes free"), text: (row) => (row.inodes ? `${Math.round((100 * row.inodes_free) / row.inodes)} %` : ""), number: true },
  ],
  { key: (row) => row.place, empty: t("Nothing is known."), caption: t("Room") },
);
const parts = table(
  byId("host-parts"),
  [
    { label: t("Part"), text: (row) => row.name },
    { label: t("State"), text: (row) => row.state },
    { label: t("Answers"), text: (row) => (row.answers ? t("yes") : t("no")), state: (row) => (row.answers ? "ok" : "fail") },
  ],
  { key: (row) => row.name, empty: t("Nothing is known."), caption: t("Parts") },
);
const findings = table(
  byId("host-findings"),
  [
    { label: t("State"), text: (row) => (LEVELS[row.level] ?? (() => row.level))(), state: (row) => row.level },
    { label: t("What"), text: (row) => row.subject },
    { label: t("Found"), text: (row) => row.text },
    { label: t("What to do"), text: (row) => row.fix },
  ],
  { key: (row) => `${row.subject} ${row.text}`, empty: t("Nothing is known."), caption: t("Findings") },
);
const passes = table(
  byId("host-passes"),
  [
    { label: t("Pass"), text: (row) => row.name },
    { label: t("Last"), text: (row) => moment(row.at) },
    { label: t("Result"), text: (row) => (row.ok ? t("good") : t("failed")), state: (row) => (row.ok ? "ok" : "fail") },
    { label: t("Took"), text: (row) => lasting(row.seconds), number: true },
  ],
  { key: (row) => row.name, empty: t("None has run yet."), caption: t("Passes") },
);
const certificates = table(
  byId("host-certificates"),
  [
    { label: t("Name"), text: (row) => row.subject },
    { label: t("Ends"), text: (row) => moment(row.ends) },
  ],
  { key: (row) => `${row.subject} ${row.ends}`, empty: t("The site has none of its own."), caption: t("Certificates") },
);

/** Show the machine. */
export function machine(host) {
  const facts = [
    [t("Memory"), t("{free} of {all} can still be had", { free: bytes(host.memory.available), all: bytes(host.memory.bytes) })],
    [t("Load"), `${host.load.join(" ")} (${t("{count} processors", { count: host.processors })})`],
    ...Object.entries(host.versions).map(([name, version]) => [name, version]),
  ];
  byId("host-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  storage(host.storage);
  parts(host.parts);
  findings(host.findings);
  passes(Object.entries(host.passes).map(([name, pass]) => ({ name, ...pass })));
  certificates(host.certificates);
}

// The form: shows the link and its badges while one types. Launching and making links work without this.
import { badges, launchPath, pasted, providerOf, withChoice } from "./links.js";
import * as recent from "./recent.js";
import { t } from "./strings.js";

const displays = window.pageConfig.repoProviders;
const site = window.pageConfig.badgeBaseUrl;
const byId = (id) => document.getElementById(id);
const fields = ["repo", "ref", "path", "kind"];

byId("share").hidden = false;
byId("form").addEventListener("input", update);
byId("repo").addEventListener("input", recognise);
byId("repo").addEventListener("change", spread);
byId("provider").addEventListener("change", labels);
byId("form").addEventListener("submit", (event) => {
  const path = current();
  if (!path) return;
  event.preventDefault();
  location.assign(window.pageConfig.baseUrl + path);
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
byId("forget").addEventListener("click", () => {
  recent.forget();
  remembered();
  byId("repo").focus();
});
remembered();
labels();
update();

function display() {
  return displays.find((item) => item.id === byId("provider").value) ?? displays[0];
}

function current() {
  const path = launchPath(display(), Object.fromEntries(fields.map((name) => [name, byId(name).value])));
  const chosen = [...document.querySelectorAll("[data-choice]")].filter((item) => item.type !== "checkbox" || item.checked);
  return path && withChoice(path, chosen.map((item) => [item.name, item.value]));
}

function recognise() {
  const found = providerOf(displays, byId("repo").value, byId("provider").value);
  if (found && found.id !== byId("provider").value) {
    byId("provider").value = found.id;
    labels();
  }
}

// A pasted address of a file in a repository fills the other fields.
function spread() {
  const found = pasted(display(), byId("repo").value);
  if (!found.ref) return;
  byId("repo").value = found.repo;
  byId("ref").value ||= found.ref;
  byId("path").value ||= found.path;
  update();
}

function labels() {
  const shown = display();
  byId("repolabel").textContent = t(shown.repo.label);
  byId("repo").placeholder = shown.repo.placeholder;
  byId("ref").disabled = !shown.ref.enabled;
  update();
}

function update() {
  const path = current();
  byId("shared").hidden = !path;
  byId("sharehint").hidden = Boolean(path);
  if (!path) return;
  const url = site + path;
  const made = badges(url, `${site}badge_logo.svg`, "Binder");
  byId("badge").href = window.pageConfig.baseUrl + path;
  byId("link").value = url;
  for (const name of ["markdown", "html", "rst"]) byId(name).value = made[name];
}

function remembered() {
  const items = recent.list(window.pageConfig.baseUrl).map(({ path, name }) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = path;
    link.textContent = name;
    item.append(link);
    return item;
  });
  byId("recentlist").replaceChildren(...items);
  byId("recent").hidden = !items.length;
}

async function copy(button) {
  const field = byId(button.dataset.copy);
  let said = t("Copied");
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    field.select();
    said = t("Press Ctrl+C to copy");
  }
  byId("copied").textContent = said;
  button.textContent = said;
  setTimeout(() => (button.textContent = t("Copy")), 2000);
}

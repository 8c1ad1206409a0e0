import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { badges, launchPath, providerOf, withChoice } from "../../../binder_onprem/web/static/links.js";

// Written by the Python test beside this one, so that both read the same providers.
const displays = JSON.parse(process.env.DISPLAYS);
const cases = JSON.parse(readFileSync(new URL("links.json", import.meta.url)));

for (const item of cases) {
  test(JSON.stringify(item), () => {
    const display = displays.find((one) => one.id === item.provider);
    assert.equal(launchPath(display, item), item.link);
  });
}

for (const [text, id] of [["https://github.com/o/r", "gh"], ["https://gitlab.com/g/p", "gl"], ["https://git.example.org/x", "git"], ["https://github.com.evil.example/o/r", "git"], ["https://gist.github.com/ana/8ac7e8ba", "gist"], ["https://zenodo.org/records/1", "zenodo"], ["https://doi.org/10.5281/zenodo.1", "zenodo"], ["https://doi.org/10.6084/m9.figshare.1", "figshare"], ["https://doi.org/10.7910/DVN/X", "dataverse"], ["https://www.hydroshare.org/resource/8f7c2f0341ef4180b0dbe97f59130756", "hydroshare"], ["o/r", null], ["", null]]) {
  test(`provider of ${text}`, () => assert.equal(providerOf(displays, text)?.id ?? null, id));
}

test("badges", () => {
  const made = badges('http://h/v2/gh/o/r/HEAD?a="&b', "http://h/badge_logo.svg", "Binder");
  assert.equal(made.markdown, '[![Binder](http://h/badge_logo.svg)](http://h/v2/gh/o/r/HEAD?a="&b)');
  assert.equal(made.html, '<a href="http://h/v2/gh/o/r/HEAD?a=&quot;&amp;b"><img src="http://h/badge_logo.svg" alt="Binder"></a>');
  assert.equal(made.rst, '.. image:: http://h/badge_logo.svg\n   :target: http://h/v2/gh/o/r/HEAD?a="&b\n   :alt: Binder');
});

for (const [path, pairs, link] of [
  ["v2/gh/o/r/HEAD", [["profile", "large"], ["data", "a"], ["data", "b"]], "v2/gh/o/r/HEAD?profile=large&data=a%2Cb"],
  ["v2/gh/o/r/HEAD?urlpath=x", [["profile", ""], ["image", "stats"]], "v2/gh/o/r/HEAD?urlpath=x&image=stats"],
  ["v2/gh/o/r/HEAD", [["profile", ""]], "v2/gh/o/r/HEAD"],
]) {
  test(`choice ${link}`, () => assert.equal(withChoice(path, pairs), link));
}

import assert from "node:assert/strict";
import test from "node:test";
import { sessionUrl } from "../../../binder_onprem/web/static/redirect.js";

const URL_ = "http://127.0.0.1:8585/jupyter/user/o-r-1/";
const at = (rest) => `${URL_}${rest}`;

const TABLE = [
  [{}, at("?token=t")],
  [{ urlpath: "" }, at("?token=t")],
  [{ urlpath: "lab/tree/x.ipynb" }, at("lab/tree/x.ipynb?token=t")],
  [{ urlpath: "/lab" }, at("lab?token=t")],
  [{ urlpath: "///lab" }, at("lab?token=t")],
  [{ labpath: "a/b c.ipynb" }, at("doc/tree/a/b%20c.ipynb?token=t")],
  [{ labpath: "dir/" }, at("doc/tree/dir?token=t")],
  [{ filepath: "/index.ipynb" }, at("tree/index.ipynb?token=t")],
  [{ filepath: "x?y#z.ipynb" }, at("tree/x%3Fy%23z.ipynb?token=t")],
  [{ labpath: "l", filepath: "f", urlpath: "u" }, at("doc/tree/l?token=t")],
  [{ filepath: "f", urlpath: "u" }, at("tree/f?token=t")],
  [{ urlpath: "git-pull?repo=https%3A%2F%2Fe.org%2Fr&urlpath=lab%2Ftree%2Fr" }, at("git-pull?repo=https%3A%2F%2Fe.org%2Fr&urlpath=lab%2Ftree%2Fr&token=t")],
  [{ urlpath: "lab#section" }, at("lab?token=t#section")],
  [{ urlpath: "lab?a=1#s" }, at("lab?a=1&token=t#s")],
  // Never away from the session's own address.
  [{ urlpath: "//evil.example/x" }, at("evil.example/x?token=t")],
  [{ urlpath: "/\\evil.example/x" }, at("evil.example/x?token=t")],
  [{ urlpath: "\\\\evil.example" }, at("evil.example?token=t")],
  [{ urlpath: "\t//evil.example" }, at("evil.example?token=t")],
  [{ urlpath: "/\t/evil.example" }, at("evil.example?token=t")],
  [{ urlpath: "javascript:alert(1)" }, at("javascript:alert(1)?token=t")],
  [{ urlpath: "https://evil.example/" }, at("https://evil.example/?token=t")],
  [{ urlpath: "@evil.example/" }, at("@evil.example/?token=t")],
  [{ urlpath: "../../hub/logout" }, at("?token=t")],
  [{ urlpath: "%2e%2e/%2e%2e/hub/home" }, at("?token=t")],
  [{ urlpath: "..\\..\\hub/home" }, at("?token=t")],
  [{ urlpath: ".\t./.\t./x" }, at("?token=t")],
  [{ urlpath: "..%2f..%2Fhub%2fhome" }, at("?token=t")],
  [{ urlpath: "a/..%5c..\\..%5chub" }, at("?token=t")],
  [{ urlpath: "%" }, at("?token=t")],
  [{ urlpath: "a..b/..c" }, at("a..b/..c?token=t")],
  [{ filepath: "../../../other/tree" }, at("?token=t")],
  [{ labpath: "../../../../o-r-2/lab" }, at("?token=t")],
];

for (const [opening, expected] of TABLE) {
  test(JSON.stringify(opening), () => assert.equal(sessionUrl(URL_, "t", opening), expected));
}

test("the token is encoded", () => assert.equal(sessionUrl(URL_, "a&b=#", {}), at("?token=a%26b%3D%23")));
test("an address with a port and a host name", () => assert.equal(sessionUrl("https://h.example/b/jupyter/user/x/", "t", { urlpath: "//x" }), "https://h.example/b/jupyter/user/x/x?token=t"));

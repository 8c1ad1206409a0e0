import assert from "node:assert/strict";
import test from "node:test";
import { clean, plain } from "../../../binder_onprem/web/static/log.js";

const ESC = "\u001b";
for (const [raw, kept] of [
  ["plain\n", "plain\n"],
  [`${ESC}[1;31mred${ESC}[0m`, `${ESC}[1;31mred${ESC}[0m`],
  [`${ESC}]8;;http://evil${"\u0007"}link${ESC}]8;;${"\u0007"}`, "link"],
  [`${ESC}]52;c;ZXZpbA==${ESC}\\x`, "x"],
  [`${ESC}]0;title never ends`, ""],
  [`a${ESC}[2J${ESC}[H${ESC}[?1049hb`, "ab"],
  [`${ESC}[38;2;255;0;0mx${ESC}[38;5;9my`, `x${ESC}[38;5;9my`],
  [`${ESC}Pq#0${ESC}\\x`, "x"],
  ["bell\u0007 back\b nul\u0000 c1\u009b31m", "bell back nul c131m"],
  ["\u0001 31m", " 31m"],
  [`${ESC}`, ""],
]) {
  test(JSON.stringify(raw), () => assert.equal(clean(raw), kept));
}
test("without colours", () => assert.equal(plain(`${ESC}[31mred${ESC}[0m <b>`), "red <b>"));

// Translated strings of the page, by their English source. `t` is also what the catalogue's extractor looks for.
const element = typeof document === "undefined" ? null : document.getElementById("strings");
const strings = element ? JSON.parse(element.textContent) : {};

/** The text in the page's language; {name} is replaced by the value of that name. */
export function t(text, values = {}) {
  const translated = Object.hasOwn(strings, text) ? strings[text] : text;
  return translated.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

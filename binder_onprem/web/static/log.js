// The log on the page: xterm.js where it can be had, plain text where not. What is logged is never read as markup.
import { t } from "./strings.js";

const KEPT = 20000;
const BATCH = 60;

// In this order: strings (titles, links, clipboard writes), colours, other control sequences, other escapes, control characters.
const CONTROL = /\u001b(?:[\]PX^_][\s\S]*?(?:\u0007|\u001b\\|$)|\[([0-9;:]*)m|\[[0-?]*[ -/]*[@-~]|[@-_]?)|[\u0000-\u0008\u000b\u000c\u000e-\u001a\u001c-\u001f\u007f-\u009f]/g;
const TRUE_COLOUR = /(?:^|[;:])[34]8[;:]2/;

/** Only plain colours stay of all escape sequences; 24-bit ones go too, since they need inline styles. */
export function clean(text) {
  return text.replace(CONTROL, (whole, codes) => (codes !== undefined && !TRUE_COLOUR.test(codes) ? whole : ""));
}

/** The same without colours, for reading and copying. */
export function plain(text) {
  return clean(text).replace(/\u001b\[[0-9;:]*m/g, "");
}

/** A log in an element; lines added before the terminal is there are kept for it. */
export class Log {
  constructor(element, nonce, base) {
    this.element = element;
    this.lines = [];
    this.waiting = "";
    this.timer = 0;
    this.write = null;
    this.ready = terminal(element, nonce, base).catch(() => text(element)).then((write) => {
      this.write = write;
      this.flush();
    });
  }

  add(line) {
    this.lines.push(line);
    if (this.lines.length > KEPT) this.lines.shift();
    this.waiting += line;
    // Several hundred lines a second are drawn in a few steps.
    if (!this.timer) this.timer = setTimeout(() => this.flush(), BATCH);
  }

  flush() {
    this.timer = 0;
    if (!this.write || !this.waiting) return;
    const text = this.waiting;
    this.waiting = "";
    this.write(text);
  }

  get text() {
    return this.lines.map(plain).join("");
  }
}

async function terminal(element, nonce, base) {
  const [{ Terminal }, { FitAddon }] = await Promise.all([import(`${base}static/vendor/xterm.mjs`), import(`${base}static/vendor/addon-fit.mjs`)]);
  const colours = getComputedStyle(element);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const term = new Terminal({
    convertEol: true,
    disableStdin: true,
    cursorBlink: false,
    cursorStyle: "underline",
    cursorInactiveStyle: "none",
    fontFamily: colours.getPropertyValue("--mono").trim() || "monospace",
    fontSize: 13,
    scrollback: KEPT,
    screenReaderMode: false,
    linkHandler: null,
    theme: theme(dark.matches),
  });
  const fit = new FitAddon();
  allowStyles(nonce);
  term.loadAddon(fit);
  // The addon counts an element's padding as room for text: the terminal's own has none.
  const screen = document.createElement("div");
  screen.className = "screen";
  element.replaceChildren(screen);
  term.open(screen);
  fit.fit();
  new ResizeObserver(() => fit.fit()).observe(element);
  dark.addEventListener("change", () => (term.options.theme = theme(dark.matches)));
  // A read-only log must not keep the keyboard: Tab leaves it.
  term.attachCustomKeyEventHandler((event) => event.key !== "Tab");
  if (term.textarea) {
    term.textarea.readOnly = true;
    term.textarea.setAttribute("aria-label", t("Log, read only. A link above shows it as text."));
  }
  element.dataset.kind = "terminal";
  return (lines) => term.write(clean(lines));
}

// The terminal makes style elements in several places; the page's policy asks for a nonce on each.
function allowStyles(nonce) {
  const create = document.createElement;
  document.createElement = function (tag, ...options) {
    const made = create.call(this, tag, ...options);
    if (made instanceof HTMLStyleElement) made.nonce = nonce;
    return made;
  };
}

function theme(dark) {
  return dark
    ? {
        background: "#10151b", foreground: "#d8dee6", cursor: "#10151b", selectionBackground: "#35506b",
        black: "#8b949e", brightBlack: "#8b949e", red: "#ff8a80", brightRed: "#ff8a80", green: "#56c271", brightGreen: "#7ee295",
        yellow: "#f0c568", brightYellow: "#f7d78c", blue: "#6cb2f5", brightBlue: "#93c7f9", magenta: "#d8a6f5", brightMagenta: "#e6c5fa",
        cyan: "#5cc8d6", brightCyan: "#8adbe5",
      }
    : {
        background: "#f7f8fa", foreground: "#1f2933", cursor: "#f7f8fa", selectionBackground: "#c6dcf2",
        yellow: "#8a6100", brightYellow: "#8a6100", green: "#1a7f37", brightGreen: "#1a7f37", cyan: "#0b6e84", brightCyan: "#0b6e84",
        white: "#57606a", brightWhite: "#24292f", red: "#b3261e", brightRed: "#b3261e", blue: "#0a58ca", brightBlue: "#0a58ca",
      };
}

function text(element) {
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  element.replaceChildren(pre);
  element.dataset.kind = "text";
  return (lines) => {
    const end = element.scrollTop + element.clientHeight >= element.scrollHeight - 20;
    pre.append(plain(lines));
    if (end) element.scrollTop = element.scrollHeight;
  };
}

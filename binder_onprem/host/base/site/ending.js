// In JupyterLab and Notebook: says when the session is about to end, offers its changed files and, where that helps, to keep it.
// A prebuilt extension written by hand: the loader of federated extensions asks the container below for one module. Its questions go to the
// service that started the session, not to the session's server, so that asking is no activity. Anywhere else it does nothing.
(() => {
  const LONGEST = 60;
  const SHORTEST = 3;
  const UNANSWERED = [5, 10, 15, 30];
  const WORDS = {
    en: {
      idle: (time) => `Nobody uses this session: it ends in ${time}.`,
      age: (time) => `This session reaches its time limit and ends in ${time}. Save your work.`,
      maintenance: (time) =>
        `The machine of this session is to be maintained: the session runs until ${time} at the latest. Save your work, and download what you want to keep.`,
      drained: "This session was ended for the maintenance of its machine. Open its link again: it starts on another one.",
      ended: "This session has ended. The files you changed are kept for a while.",
      over: "This session has ended.",
      keep: "Keep working",
      download: "Download my changed files",
      close: "Close",
      label: "End of the session",
      minutes: (count) => (count === 1 ? "a minute" : `${count} minutes`),
      seconds: (count) => (count === 1 ? "a second" : `${count} seconds`),
    },
    fr: {
      idle: (time) => `Personne n’utilise cette session : elle se termine dans ${time}.`,
      age: (time) => `Cette session atteint sa durée limite et se termine dans ${time}. Enregistrez votre travail.`,
      maintenance: (time) =>
        `La machine de cette session va être mise en maintenance. Fin de la session au plus tard : ${time}. Enregistrez votre travail et téléchargez ce que vous voulez garder.`,
      drained: "Cette session a été arrêtée pour la maintenance de sa machine. Rouvrez son lien : elle démarre sur une autre.",
      ended: "Cette session est terminée. Les fichiers que vous avez modifiés sont conservés quelque temps.",
      over: "Cette session est terminée.",
      keep: "Continuer à travailler",
      download: "Télécharger mes fichiers modifiés",
      close: "Fermer",
      label: "Fin de la session",
      minutes: (count) => (count === 1 ? "une minute" : `${count} minutes`),
      seconds: (count) => (count === 1 ? "une seconde" : `${count} secondes`),
    },
  };

  function words() {
    const tags = [document.documentElement.lang, navigator.language].map((tag) => (tag || "").toLowerCase());
    return tags.some((tag) => tag.startsWith("fr")) ? WORDS.fr : WORDS.en;
  }

  function session() {
    const data = document.getElementById("jupyter-config-data");
    const config = data ? JSON.parse(data.textContent) : {};
    const found = /^(.*\/)jupyter\/user\/(?:[^/]+\/)?([a-z0-9-]+-[0-9a-f]{16})\/$/.exec(config.baseUrl || "");
    const token = config.token || remembered(config.baseUrl);
    return found && token ? { api: `${found[1]}api/session/${found[2]}`, server: config.baseUrl, token } : null;
  }

  // The page of the launch has left it here, for images whose server does not tell its pages the token.
  function remembered(path) {
    try {
      return localStorage.getItem(`binder-token:${path}`);
    } catch {
      return null;
    }
  }

  function ask(here, path = "", method = "GET") {
    return fetch(here.api + path, { method, headers: { Authorization: `token ${here.token}` }, cache: "no-store", credentials: "omit" });
  }

  function text(left, t) {
    return left >= 90 ? t.minutes(Math.round(left / 60)) : t.seconds(Math.max(1, Math.round(left)));
  }

  // By the reader's clock and, where that is another one, with the day.
  function clock(seconds) {
    const then = new Date(1000 * seconds);
    const day = then.toDateString() === new Date().toDateString() ? {} : { weekday: "long", day: "numeric", month: "long" };
    return then.toLocaleString(words() === WORDS.fr ? "fr" : "en-GB", { ...day, hour: "2-digit", minute: "2-digit" });
  }

  class Notice {
    constructor(here, look) {
      this.here = here;
      this.look = look;
      this.box = null;
      this.closed = "";
    }

    show(kind, sentence, { keep, files }) {
      if (this.closed === kind) return;
      if (!this.box || this.box.dataset.kind !== kind) this.build(kind, keep, files);
      const line = this.box.querySelector("p");
      if (line.textContent !== sentence) line.textContent = sentence;
    }

    hide() {
      if (this.box) this.box.remove();
      this.box = null;
      this.closed = "";
    }

    build(kind, keep, files) {
      if (this.box) this.box.remove();
      const t = words();
      this.box = document.createElement("section");
      this.box.id = "binder-onprem-ending";
      this.box.dataset.kind = kind;
      this.box.setAttribute("role", "alert");
      this.box.setAttribute("aria-label", t.label);
      this.box.style.cssText =
        "position:fixed;right:16px;bottom:40px;z-index:10001;box-sizing:border-box;width:min(26rem,calc(100vw - 32px));padding:12px 16px;" +
        "border-radius:6px;border:1px solid var(--jp-warn-color0,#b25a00);border-left-width:6px;background:var(--jp-layout-color1,#fff);" +
        "color:var(--jp-ui-font-color1,#1a1a1a);font:14px/1.4 var(--jp-ui-font-family,system-ui,sans-serif);box-shadow:0 4px 16px rgba(0,0,0,.25)";
      const line = document.createElement("p");
      line.style.margin = "0 0 8px";
      this.box.append(line);
      if (keep) this.button(t.keep, () => this.keep());
      if (files) this.button(t.download, () => this.download());
      this.button(t.close, () => {
        this.closed = kind;
        this.box.remove();
        this.box = null;
      });
      document.body.append(this.box);
    }

    button(label, act) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.style.cssText =
        "margin:4px 8px 0 0;padding:6px 12px;border:1px solid var(--jp-border-color0,#767676);border-radius:4px;cursor:pointer;font:inherit;" +
        "background:var(--jp-layout-color2,#eee);color:inherit";
      button.addEventListener("click", act);
      this.box.append(button);
    }

    async keep() {
      try {
        // The server's own answer counts as activity for whoever asks the proxy.
        await Promise.all([ask(this.here, "/keep", "POST"), fetch(`${this.here.server}api/status?token=${this.here.token}`)]);
      } catch {
        // The next look says how it stands.
      }
      this.look();
    }

    download() {
      const link = document.createElement("a");
      link.href = `${this.here.api}/files?token=${encodeURIComponent(this.here.token)}`;
      link.download = "";
      link.referrerPolicy = "no-referrer";
      document.body.append(link);
      link.click();
      link.remove();
    }
  }

  function watch(here) {
    let timer = 0;
    let known = false;
    let drained = false;
    let unanswered = 0;
    const notice = new Notice(here, look);

    async function look() {
      clearTimeout(timer);
      // The service restarts, or the person is offline: it comes back soon, and every page of the site asks then.
      let next = UNANSWERED[Math.min(unanswered++, UNANSWERED.length - 1)] * (0.8 + 0.4 * Math.random());
      try {
        const answer = await ask(here);
        if (answer.ok) next = told(await answer.json());
        else if (answer.status === 404) next = gone();
        if (answer.ok || answer.status === 404) unanswered = 0;
      } catch {
        // The same.
      }
      timer = setTimeout(look, 1000 * next);
    }

    function gone() {
      if (known) notice.show("over", drained ? words().drained : words().over, { keep: false, files: false });
      return LONGEST;
    }

    function told(state) {
      const t = words();
      known = true;
      if (state.ended) {
        // Without files it has ended by itself, and they are about to be kept.
        const over = drained ? t.drained : t.over;
        notice.show(state.files ? "ended" : "over", state.files ? t.ended : over, { keep: false, files: state.files });
        return state.files ? LONGEST : 5;
      }
      const left = state.seconds;
      const due = typeof left === "number" && left <= state.warn;
      drained = due && state.reason === "maintenance";
      if (typeof state.maintenance === "number" && (!due || state.reason === "maintenance")) {
        // At once, however long it is until then, as it takes time to bring work to an end; and again when it is about to end.
        notice.show(`maintenance ${state.maintenance} ${due}`, t.maintenance(clock(state.maintenance)), { keep: false, files: state.files });
        return due ? 15 : LONGEST;
      }
      if (!due) {
        notice.hide();
        return Math.min(LONGEST, Math.max(SHORTEST, typeof left === "number" ? left - state.warn : LONGEST));
      }
      const age = state.reason === "age";
      notice.show(age ? "age" : "idle", (age ? t.age : t.idle)(text(left, t)), { keep: !age, files: state.files });
      return Math.min(left > 90 ? 15 : SHORTEST, LONGEST);
    }

    look();
  }

  function activate() {
    try {
      const here = session();
      if (here) watch(here);
    } catch {
      // A page of another kind.
    }
  }

  const plugin = { id: "binder-onprem-ending:plugin", description: "Says when the session is about to end.", autoStart: true, activate };
  const extension = { __esModule: true, default: [plugin] };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["binder-onprem-ending"] = {
    init() {},
    get: (module) => (module === "./extension" ? Promise.resolve(() => extension) : Promise.reject(new Error(`no module ${module}`))),
  };
})();

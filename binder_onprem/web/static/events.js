// The launch's event stream, kept alive across lost connections and restarts of the server.

const FIRST_WAIT = 1000;
const LONGEST_WAIT = 10000;

/**
 * Follow a launch until its terminal event.
 *
 * A broken connection is taken up after the last event seen; what came before is not repeated.
 *
 * @param {string} url of the stream
 * @param {string|null} lastId where to continue, or null for a new launch
 * @param {{event: (data: object, id: string) => void, lost: (attempt: number) => void, back: () => void, over: () => void}} handlers
 *   `over`: the server says that this launch had ended before
 * @returns {() => void} stops following
 */
export function follow(url, lastId, handlers) {
  let source = null;
  let timer = 0;
  let attempt = 0;
  let done = false;

  function open() {
    source = new EventSource(lastId ? `${url}&last_id=${encodeURIComponent(lastId)}` : url);
    source.onmessage = receive;
    source.onopen = () => {
      if (attempt) handlers.back();
      attempt = 0;
    };
    source.onerror = () => {
      // The browser's own reconnecting would send the first URL again and gives up on an HTTP error; ours does neither.
      source.close();
      if (!done) retry();
    };
  }

  function receive(message) {
    let data;
    try {
      data = JSON.parse(message.data);
    } catch {
      return;
    }
    lastId = message.lastEventId || lastId;
    if (data.phase === "ready" || data.phase === "failed") stop();
    handlers.event(data, lastId);
  }

  async function retry() {
    attempt += 1;
    handlers.lost(attempt);
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(attempt - 1, 5)) * (0.75 + Math.random() / 2);
    timer = setTimeout(open, wait);
  }

  function stop() {
    done = true;
    clearTimeout(timer);
    if (source) source.close();
  }

  open();
  return stop;
}

// Tables that are brought up to date in place: a row stays the same element as long as its key stays, so focus and selection stay too.

/** Elements of text only; what is shown is never read as markup. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(made.dataset, value);
    else if (name.startsWith("aria-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/**
 * A table in a holder.
 *
 * @param {HTMLElement} holder
 * @param {{label: string, text: (row: object) => string, title?: (row: object) => string, state?: (row: object) => string, number?: boolean}[]} columns
 * @param {{key: (row: object) => string, empty: string, caption: string, orders?: (row: object) => {label: string, name: string, act: () => void}[]}} options
 */
export function table(holder, columns, options) {
  const body = element("tbody");
  const head = columns.map((column) => element("th", { textContent: column.label, scope: "col", className: column.number ? "number" : "" }));
  if (options.orders) head.push(element("th", { scope: "col" }, element("span", { className: "sr", textContent: options.ordersLabel })));
  const whole = element("table", {}, element("caption", { className: "sr", textContent: options.caption }), element("thead", {}, element("tr", {}, ...head)), body);
  const empty = element("p", { className: "empty", textContent: options.empty });
  holder.replaceChildren(whole, empty);
  const known = new Map();

  return (rows) => {
    const keys = new Set(rows.map(options.key));
    for (const [key, line] of known) {
      if (!keys.has(key)) {
        line.row.remove();
        known.delete(key);
      }
    }
    rows.forEach((row, place) => {
      const key = options.key(row);
      const line = known.get(key) ?? added(known, key, columns, options);
      shown(line, row, columns, options);
      if (body.children[place] !== line.row) body.insertBefore(line.row, body.children[place] ?? null);
    });
    whole.hidden = !rows.length;
    empty.hidden = Boolean(rows.length);
  };
}

function added(known, key, columns, options) {
  const cells = columns.map((column) => element("td", { className: column.number ? "number" : "", data: { label: column.label } }, element("span")));
  const orders = options.orders ? element("div", { className: "buttons" }) : null;
  const row = element("tr", {}, ...cells, ...(orders ? [element("td", { className: "orders" }, orders)] : []));
  const line = { row, cells: cells.map((cell) => cell.firstChild), orders };
  known.set(key, line);
  return line;
}

function shown(line, row, columns, options) {
  columns.forEach((column, place) => {
    const cell = line.cells[place];
    const text = column.text(row) ?? "";
    if (cell.textContent !== text) cell.textContent = text;
    if (column.title) cell.title = column.title(row) ?? "";
    if (column.state) {
      cell.className = "state";
      cell.dataset.state = column.state(row);
    }
  });
  if (line.orders) ordered(line.orders, options.orders(row));
}

function ordered(holder, orders) {
  const labels = orders.map((order) => order.label).join("\n");
  if (holder.dataset.labels !== labels) {
    holder.dataset.labels = labels;
    holder.replaceChildren(...orders.map((order) => element("button", { type: "button", className: "small", textContent: order.label })));
  }
  orders.forEach((order, place) => {
    holder.children[place].setAttribute("aria-label", `${order.label}: ${order.name}`);
    holder.children[place].onclick = order.act;
  });
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count) {
  if (count === null || count === undefined) return "";
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function moment(seconds) {
  if (!seconds) return "";
  return new Date(seconds * 1000).toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "medium" });
}

export function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

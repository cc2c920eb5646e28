// The page of the admin port: what goes through the proxy, as /events tells it.
//
// Everything that is shown goes in by textContent: names of models, paths and header fields come from anywhere.

const BUCKET_SECONDS = 5;
const BUCKETS = 60;
const RATE_BUCKETS = 6; // of which the rate is the mean
const BIN_SECONDS = 0.001;
const BIN_GROWTH = 1.05;
const MOST_RECENT = 500;
const PAGE_ROWS = 25;

const byId = (id) => document.getElementById(id);

/** Make an element: its class, its text, and what is in it. */
function element(name, className = "", ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content.filter((each) => each !== null && each !== undefined));
  return made;
}

/** Set a text only where it differs: most cells stay the same. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// How values are written.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

const known = (value) => value !== null && value !== undefined;

function duration(seconds) {
  if (!known(seconds)) return "";
  const value = Math.max(0, seconds);
  if (value < 0.9995) return `${number(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.floor(value)} s`;
  const [whole, large, small] = value < 3600 ? [Math.floor(value), "min", "s"] : [Math.floor(value / 60), "h", "min"];
  return `${Math.floor(whole / 60)} ${large}${whole % 60 ? ` ${whole % 60} ${small}` : ""}`;
}

/** Minutes and seconds. */
function minutes(seconds) {
  const whole = Math.floor(Math.max(0, seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A duration that ticks: without tenths, which would flicker. */
function age(seconds) {
  if (seconds < 60) return `${Math.floor(Math.max(0, seconds))} s`;
  return seconds < 3600 ? minutes(seconds) : duration(seconds);
}

function bytes(count) {
  if (!known(count)) return "";
  if (count < 1000) return `${count} B`;
  const units = ["KB", "MB", "GB", "TB"];
  let value = count;
  let unit = -1;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value)} ${units[unit]}`;
}

function number(value) {
  if (!known(value)) return "";
  return (value < 9.95 ? TENTHS : WHOLE).format(value);
}

function clock(seconds) {
  return known(seconds) ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : "";
}

// What is known.

const live = new Map();
let recent = []; // the latest first
let figures = new Map();
let state = null;
let flight = 0;
let knownSince = 0;
let skew = 0; // of this machine's clock
let shownRecent = PAGE_ROWS;
const filter = { rule: "", model: "", status: "", text: "" };

const now = () => Date.now() / 1000 - skew;

/** Whether a request succeeded: "good", "error", or "left" if its client did not wait. */
function outcome(row) {
  if (row.status === 499) return "left";
  return row.status >= 400 || known(row.problem) ? "error" : "good";
}

const rowTexts = ["id", "method", "path", "client", "rule", "kind", "mode", "why", "model", "phase", "status", "code", "problem", "requestId"];

function passes(row) {
  if (filter.rule && row.rule !== filter.rule) return false;
  if (filter.model && (row.model ?? "") !== filter.model) return false;
  if (filter.status && (!row.status || outcome(row) !== filter.status)) return false;
  if (!filter.text) return true;
  const wanted = filter.text.toLowerCase();
  return rowTexts.some((name) => known(row[name]) && String(row[name]).toLowerCase().includes(wanted));
}

// Tables.

/**
 * A table whose rows are kept and changed in place.
 *
 * A column has a title, a value to sort by, and a function that fills a cell; `ticks` if that depends on the time.
 */
class Table {
  constructor(table, columns, sort, opens) {
    this.table = table;
    this.columns = columns;
    this.opens = opens;
    this.body = table.tBodies[0];
    this.rows = new Map();
    [this.key, this.descending] = sort;
    const head = element("tr");
    head.setAttribute("role", "row");
    for (const column of columns) {
      const cell = element("th", column.number ? "number" : "");
      cell.setAttribute("role", "columnheader");
      cell.scope = "col";
      if (column.value) {
        const button = element("button", "", column.title);
        button.type = "button";
        if (column.hint) button.title = column.hint;
        button.addEventListener("click", () => this.sortBy(column));
        cell.append(button);
      } else {
        cell.append(element("span", "unseen", column.title));
      }
      head.append(cell);
    }
    table.tHead.append(head);
    this.showSort();
  }

  sortBy(column) {
    this.descending = this.key === column.key ? !this.descending : Boolean(column.number);
    this.key = column.key;
    this.showSort();
    render();
  }

  showSort() {
    this.columns.forEach((column, place) => {
      const cell = this.table.tHead.rows[0].cells[place];
      if (column.key === this.key) cell.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  }

  sorted(rows) {
    const { value } = this.columns.find((each) => each.key === this.key);
    const sign = this.descending ? -1 : 1;
    const at = now();
    const keyed = rows.map((row) => [value(row, at), row]);
    keyed.sort(([a], [b]) => {
      if (known(a) !== known(b)) return known(a) ? -1 : 1; // what has no value comes last
      return a === b || !known(a) ? 0 : (a < b ? -1 : 1) * sign;
    });
    return keyed.map(([, row]) => row);
  }

  /** Show these rows, in this order. */
  show(rows, animate) {
    const at = now();
    const wanted = new Set(rows.map((row) => row.id));
    for (const [id, line] of this.rows) {
      if (!wanted.has(id)) {
        line.remove();
        this.rows.delete(id);
      }
    }
    let place = this.body.firstElementChild;
    for (const row of rows) {
      let line = this.rows.get(row.id);
      const isNew = !line;
      if (isNew) line = this.make(row, animate);
      if (isNew || line.shown !== row.version) {
        line.shown = row.version;
        this.fill(line, row, at, false);
      }
      if (line === place) place = place.nextElementSibling;
      else this.body.insertBefore(line, place);
    }
  }

  /** Show what has changed by time alone. */
  tick(find) {
    const at = now();
    for (const [id, line] of this.rows) {
      const row = find(id);
      if (row) this.fill(line, row, at, true);
    }
  }

  make(row, animate) {
    const line = element("tr", animate ? "new" : "");
    line.setAttribute("role", "row");
    line.dataset.id = row.id;
    for (const column of this.columns) {
      const cell = element("td", [column.number && "number", column.span].filter(Boolean).join(" "));
      cell.setAttribute("role", "cell");
      if (column.value) cell.dataset.label = column.title;
      line.append(cell);
    }
    if (this.opens) {
      line.classList.add("opens");
      line.addEventListener("click", (event) => {
        if (!event.target.closest("button, a") && !getSelection().toString()) this.opens(row.id);
      });
    }
    this.rows.set(row.id, line);
    return line;
  }

  fill(line, row, at, onlyTicking) {
    this.columns.forEach((column, place) => {
      if (!onlyTicking || column.ticks) column.fill(line.cells[place], row, at);
    });
  }
}

/** A cell with a text that may be long, cut at its end. */
function long(cell, text) {
  if (!text) {
    if (cell.firstChild) cell.replaceChildren();
    return;
  }
  if (!cell.firstChild) cell.append(element("span", "text"));
  if (cell.firstChild.textContent !== text) {
    cell.firstChild.textContent = text;
    cell.firstChild.title = text;
  }
}

const textColumn = (key, title, more) => ({
  key, title, value: (row) => row[key], fill: (cell, row) => long(cell, row[key] ?? ""), ...more,
});
const numberColumn = (key, title, value, write, more) => ({
  key, title, value, number: true, fill: (cell, row, at) => setText(cell, write(value(row, at))), ...more,
});

/** The cell that opens the details: for the keyboard, where a click on the row is for the mouse. */
function opener(cell, row, text) {
  if (!cell.firstChild) {
    const button = element("button", "open");
    button.type = "button";
    button.addEventListener("click", () => openDetails(row.id));
    cell.append(button);
  }
  setText(cell.firstChild, text);
  cell.firstChild.setAttribute("aria-label", `Details of the request of ${text}`);
}

/** What is called and how, such as chat, converted; and what went wrong. */
function call(cell, row, text) {
  if (!cell.firstChild) cell.append(element("span", "text"), " ", element("span", "badge"));
  const [name, , mode, problem] = cell.childNodes;
  if (row.problem && !problem) {
    cell.append(element("span", "text problem", row.problem));
    cell.lastChild.title = row.problem;
  }
  setText(name, text);
  name.title = `${row.method} ${row.path}`;
  setText(mode, row.why ? `${row.mode}: ${row.why}` : row.mode);
}

const bytesText = (row) => `↑${bytes(row.received ?? 0)} ↓${bytes(row.sent ?? 0)}`;
const quiet = (row, at) => (known(row.touched) ? Math.max(0, at - row.touched) : null);

/** How long nothing has moved, as a part of what is allowed. */
function silence(cell, row, at) {
  const seconds = quiet(row, at);
  if (seconds === null || !row.limit) {
    if (cell.firstChild) cell.replaceChildren();
    return;
  }
  if (!cell.firstChild) {
    const meter = element("div", "meter", element("i"));
    meter.setAttribute("role", "meter");
    meter.setAttribute("aria-label", "Silence");
    meter.setAttribute("aria-valuemin", "0");
    cell.append(element("div", "silence", meter, element("span", "text")));
  }
  const [meter, text] = cell.firstChild.children;
  const part = Math.min(1, seconds / row.limit);
  const words = `${age(seconds)} of ${age(row.limit)}`;
  meter.dataset.level = part >= 0.8 ? "bad" : part >= 0.5 ? "warn" : "calm";
  meter.setAttribute("aria-valuemax", String(row.limit));
  meter.setAttribute("aria-valuenow", String(Math.min(row.limit, Math.floor(seconds))));
  meter.setAttribute("aria-valuetext", words);
  const width = `${(part * 100).toFixed(1)}%`;
  if (meter.firstChild.style.width !== width) meter.firstChild.style.width = width;
  setText(text, `${minutes(seconds)} of ${minutes(row.limit)}`);
}

function phase(cell, row) {
  if (!cell.firstChild) cell.append(element("span", "phase"));
  cell.firstChild.dataset.phase = row.phase;
  setText(cell.firstChild, row.phase + (row.attempts ? `, attempt ${row.attempts + 1}` : ""));
}

/** Have a button do something that cannot be taken back when it is pressed twice. */
function pressTwice(button, what, act) {
  const words = button.textContent;
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    timer = 0;
    button.className = "";
    button.textContent = words;
    button.setAttribute("aria-label", `${words} ${what}`);
  };
  calm();
  button.addEventListener("click", () => {
    if (timer) {
      calm();
      act();
      return;
    }
    timer = setTimeout(calm, 4000);
    button.className = "sure";
    button.textContent = "Sure?";
    button.setAttribute("aria-label", `Press again to ${words.toLowerCase()} ${what}`);
  });
}

function canceller(cell, row) {
  if (cell.firstChild) return;
  const button = element("button", "", "Cancel");
  button.type = "button";
  pressTwice(button, `the request of ${clock(row.began)}`, async () => {
    button.disabled = true;
    const answer = await fetch(`/requests/${encodeURIComponent(row.id)}/cancel`, { method: "POST" }).catch(() => null);
    if (!answer?.ok) {
      announce(answer?.status === 404 ? "That request has ended already." : "The request could not be cancelled.", 6);
      button.disabled = false;
    }
  });
  cell.append(button);
}

const firstEvent = (row) => (known(row.firstEvent) ? row.firstEvent - row.began : null);

/** Tokens a second of a request that has ended. */
function pace(row) {
  const seconds = (row.lastEvent ?? row.ended) - (row.firstEvent ?? row.began);
  return row.output && known(row.firstEvent) && seconds > 0.02 ? row.output / seconds : null;
}

const liveTable = new Table(byId("live"), [
  { key: "began", title: "Started", value: (row) => row.began, fill: (cell, row) => opener(cell, row, clock(row.began)) },
  numberColumn("elapsed", "Elapsed", (row, at) => at - row.began, age, { ticks: true }),
  textColumn("rule", "Rule"),
  textColumn("client", "Client"),
  { key: "kind", title: "Call", value: (row) => row.kind, fill: (cell, row) => call(cell, row, row.kind === "other" ? row.path : row.kind), span: "double" },
  textColumn("model", "Model", { span: "whole" }),
  { key: "phase", title: "Phase", value: (row) => row.phase, fill: phase, span: "double" },
  numberColumn("events", "Events", (row) => row.events ?? 0, number),
  numberColumn("tokens", "Tokens/s", (row) => row.rate || null, number, { hint: "content events a second" }),
  { key: "bytes", title: "Bytes", value: (row) => row.sent, number: true, fill: (cell, row) => setText(cell, row.sent ? `↓${bytes(row.sent)}` : `↑${bytes(row.received ?? 0)}`) },
  { key: "silence", title: "Silence", value: quiet, fill: silence, ticks: true, span: "double" },
  { key: "cancel", title: "Cancel", fill: canceller },
], ["began", false], openDetails);

const recentTable = new Table(byId("recent"), [
  { key: "ended", title: "Ended", value: (row) => row.ended, fill: (cell, row) => opener(cell, row, clock(row.ended)) },
  { key: "status", title: "Status", value: (row) => row.status, fill: status },
  textColumn("rule", "Rule"),
  textColumn("client", "Client"),
  { key: "path", title: "Call", value: (row) => row.path, fill: (cell, row) => call(cell, row, row.method === "POST" ? row.path : `${row.method} ${row.path}`), span: "whole" },
  textColumn("model", "Model", { span: "whole" }),
  { key: "output", title: "Tokens in / out", value: (row) => row.output, number: true, fill: (cell, row) => setText(cell, known(row.output) || known(row.input) ? `${number(row.input ?? 0)} / ${number(row.output ?? 0)}` : "") },
  numberColumn("pace", "Tokens/s", pace, number),
  numberColumn("first", "First event", firstEvent, duration),
  numberColumn("total", "Total", (row) => row.ended - row.began, duration),
  { key: "bytes", title: "Bytes", value: (row) => row.sent, number: true, fill: (cell, row) => setText(cell, bytesText(row)), span: "double" },
], ["ended", true], openDetails);

const modelTable = new Table(byId("models"), [
  textColumn("model", "Model", { span: "whole" }),
  numberColumn("calls", "Calls", (row) => row.calls, number),
  numberColumn("errors", "Errors", (row) => row.errors, number),
  numberColumn("p50", "First event p50", (row) => quantile(row.firsts, 0.5), duration),
  numberColumn("p95", "First event p95", (row) => quantile(row.firsts, 0.95), duration),
  numberColumn("pace", "Tokens/s", (row) => quantile(row.paces, 0.5), number, { hint: "the median of the calls" }),
  numberColumn("input", "Tokens in", (row) => row.input, number),
  numberColumn("output", "Tokens out", (row) => row.output, number),
], ["calls", true], null);

function status(cell, row) {
  if (!cell.firstChild) cell.append(element("span", "badge"));
  cell.firstChild.dataset.status = outcome(row);
  setText(cell.firstChild, String(row.status ?? ""));
  cell.firstChild.title = { good: "succeeded", error: "failed", left: "the client left" }[outcome(row)];
}

/** The value below which a part of sorted values lies. */
function quantile(sorted, part) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] : null;
}

function models(rows) {
  const found = new Map();
  for (const row of rows) {
    if (!row.model) continue;
    let model = found.get(row.model);
    if (!model) {
      model = { id: row.model, model: row.model, calls: 0, errors: 0, input: 0, output: 0, firsts: [], paces: [] };
      found.set(row.model, model);
    }
    model.calls += 1;
    model.errors += outcome(row) === "error" ? 1 : 0;
    model.input += row.input ?? 0;
    model.output += row.output ?? 0;
    if (firstEvent(row) !== null) model.firsts.push(firstEvent(row));
    if (pace(row) !== null) model.paces.push(pace(row));
  }
  for (const model of found.values()) {
    model.firsts.sort((a, b) => a - b);
    model.paces.sort((a, b) => a - b);
    model.version = `${model.calls} ${model.errors} ${model.input} ${model.output} ${model.firsts.length}`;
  }
  return [...found.values()];
}

// Figures.

/** The buckets of the last five minutes, the oldest first; null for those that nobody counted. */
function lastBuckets() {
  const last = Math.floor(now() / BUCKET_SECONDS);
  const first = last - BUCKETS + 1;
  const empty = [0, 0, 0, 0, 0, {}];
  return Array.from({ length: BUCKETS }, (_, place) => {
    const found = figures.get(first + place);
    return found ?? ((first + place + 1) * BUCKET_SECONDS <= knownSince ? null : empty);
  });
}

/** Quantiles of times that are counted in bins. */
function binned(bins, parts) {
  const total = [...bins.values()].reduce((sum, count) => sum + count, 0);
  if (!total) return parts.map(() => null);
  const sorted = [...bins].sort(([a], [b]) => a - b);
  return parts.map((part) => {
    let left = Math.floor(total * part);
    for (const [bin, count] of sorted) {
      left -= count;
      if (left < 0) return BIN_SECONDS * BIN_GROWTH ** (bin + 0.5);
    }
    return null;
  });
}

function binsOf(buckets) {
  const bins = new Map();
  for (const bucket of buckets) {
    for (const [bin, count] of Object.entries(bucket?.[5] ?? {})) {
      bins.set(Number(bin), (bins.get(Number(bin)) ?? 0) + count);
    }
  }
  return bins;
}

function tile(id, value, unit, series, columns) {
  const node = byId(id);
  const shown = node.querySelector(".value");
  const text = unit ? `${value} ${unit}` : value;
  if (shown.textContent !== text) {
    shown.replaceChildren(value, ...(unit ? [element("span", "unit", ` ${unit}`)] : []));
  }
  drawSparkline(node.querySelector("svg"), series, columns);
}

/** Draw five minutes: a line, or columns for what is rare. */
function drawSparkline(svg, series, columns) {
  const key = series.join();
  if (svg.drawn === key) return;
  svg.drawn = key;
  const height = 30;
  const most = Math.max(...series.map((value) => value ?? 0), columns ? 4 : 0);
  const y = (value) => (most ? height - 1.5 - (value / most) * (height - 4) : height - 1.5);
  svg.setAttribute("viewBox", `0 0 ${BUCKETS} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const shape = (name, className, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    made.setAttribute("class", className);
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
    return made;
  };
  const shapes = [shape("line", "base", { x1: 0, x2: BUCKETS, y1: height - 0.5, y2: height - 0.5 })];
  if (columns) {
    series.forEach((value, place) => {
      if (value) shapes.push(shape("rect", "column", { x: place + 0.1, y: y(value), width: 0.8, height: height - 1 - y(value) }));
    });
  } else {
    let points = [];
    const end = () => {
      if (points.length > 1) {
        const line = points.map(([x, value]) => `${x} ${y(value).toFixed(2)}`).join("L");
        shapes.push(shape("path", "area", { d: `M${points[0][0]} ${height}L${line}L${points.at(-1)[0]} ${height}Z` }));
        shapes.push(shape("path", "line", { d: `M${line}` }));
      }
      points = [];
    };
    series.forEach((value, place) => {
      if (value === null) end();
      else points.push([place + 0.5, value]);
    });
    end();
  }
  svg.replaceChildren(...shapes);
}

function renderFigures() {
  const buckets = lastBuckets();
  const of = (place, each = 1) => buckets.map((bucket) => bucket && bucket[place] / each);
  const sum = (place, count = BUCKETS) => buckets.slice(-count).reduce((total, bucket) => total + (bucket?.[place] ?? 0), 0);
  // The last bucket has only begun.
  const begun = now() % BUCKET_SECONDS;
  const rate = sum(1, RATE_BUCKETS + 1) / Math.min(RATE_BUCKETS * BUCKET_SECONDS + begun, Math.max(1, now() - knownSince));
  const ended = sum(1);
  const errors = sum(2);

  const flights = of(4);
  flights[BUCKETS - 1] = Math.max(flights[BUCKETS - 1] ?? 0, flight);
  tile("tile-flight", number(flight), "", flights);
  tile("tile-rate", number(rate >= 1 ? rate : rate * 60), rate >= 1 ? "a second" : "a minute", of(1, BUCKET_SECONDS));
  tile("tile-errors", number(errors), ended ? `of ${number(ended)}, ${number((100 * errors) / ended)} %` : "", of(2), true);

  // A request's tokens are known at its end; until then each content event counts as one.
  let moving = 0;
  for (const row of live.values()) moving += row.rate || 0;
  if (live.size && flight > live.size) moving *= flight / live.size;
  tile("tile-tokens", number(Math.max(moving, sum(3, 3) / (2 * BUCKET_SECONDS + begun))), "a second", of(3, BUCKET_SECONDS));

  const [p50, p95] = binned(binsOf(buckets), [0.5, 0.95]);
  const middles = buckets.map((bucket) => (bucket ? binned(binsOf([bucket]), [0.5])[0] : null));
  tile("tile-first", p50 === null ? "–" : duration(p50), p50 === null ? "" : `p95 ${duration(p95)}`, middles);
}

/** Content events a second of each request under way, over about the last two seconds. */
function measureRates() {
  const at = now();
  for (const row of live.values()) {
    if (known(row.counted)) {
      const seconds = at - row.countedAt;
      if (seconds < 0.5) continue;
      const rate = ((row.events ?? 0) - row.counted) / seconds;
      const before = row.rate;
      row.rate = before === undefined ? rate : 0.5 * before + 0.5 * rate;
      if (row.rate < 0.05) row.rate = 0;
      if (row.rate !== before) row.version = ++versions;
    }
    row.counted = row.events ?? 0;
    row.countedAt = at;
  }
}

function renderService() {
  const badge = byId("status");
  if (source?.readyState === EventSource.OPEN && state) {
    badge.dataset.status = state.status;
    setText(badge, state.status);
  } else {
    badge.dataset.status = opened ? "lost" : "connecting";
    setText(badge, opened ? "connection lost" : "connecting");
  }
  const { workers, reload } = state ?? {};
  byId("workers").hidden = !workers;
  if (workers) setText(byId("workers"), `${workers.running} of ${workers.wanted} workers`);
  byId("reload").hidden = !reload;
  if (reload) {
    byId("reload").className = reload.problem ? "problem" : "";
    setText(byId("reload"), reload.problem ? `reload at ${clock(reload.time)} failed: ${reload.problem}` : `configuration read again at ${clock(reload.time)}`);
  }
  byId("logout").hidden = !state?.keyed;
  document.title = flight ? `${flight} in flight · openai-stream-proxy` : "openai-stream-proxy";
}

// What is shown.

function setCount(id, shown, all) {
  setText(byId(id).querySelector(".count"), shown === all ? (all ? String(all) : "") : `${shown} of ${all}`);
}

function renderFilter() {
  const form = byId("filter");
  const fill = (select, values) => {
    const wanted = [...new Set([...values, select.value])].filter(Boolean).sort();
    const have = [...select.options].slice(1).map((option) => option.value);
    if (wanted.join("\n") === have.join("\n")) return;
    const { value } = select;
    select.replaceChildren(select.options[0], ...wanted.map((each) => new Option(each, each)));
    select.value = value;
  };
  const rows = [...live.values(), ...recent];
  fill(form.elements.rule, rows.map((row) => row.rule));
  fill(form.elements.model, rows.map((row) => row.model));
  form.querySelector("button").hidden = !Object.values(filter).some(Boolean);
}

let animate = false;

function render() {
  const running = [...live.values()];
  const matching = filter.status ? [] : running.filter(passes);
  liveTable.show(liveTable.sorted(matching), animate);
  setCount("live-title", matching.length, flight);
  empty("live", matching.length, running.length, "Nothing is under way. Requests appear here while they run.");

  const ended = recent.filter(passes);
  recentTable.show(recentTable.sorted(ended).slice(0, shownRecent), animate);
  setCount("tab-recent", ended.length, recent.length);
  empty("recent", ended.length, recent.length, `Nothing has ended yet. The last ${MOST_RECENT} requests stay here.`);
  byId("more").hidden = ended.length <= shownRecent;

  const found = models(ended);
  if (!byId("panel-models").hidden) modelTable.show(modelTable.sorted(found), false);
  setCount("tab-models", found.length, found.length);
  empty("models", found.length, 0, "No model has answered yet.");
  renderFilter();
  animate = true;
}

function empty(id, shown, all, words) {
  const table = byId(id);
  const note = table.parentElement.querySelector(".empty");
  table.hidden = !shown;
  note.hidden = Boolean(shown);
  setText(note, all ? "Nothing here fits the filter." : words);
}

let announced = 0;

/** Tell something, aloud where a screen reader listens, for so many seconds. */
function announce(words, seconds) {
  const note = byId("announcement");
  clearTimeout(announced);
  note.textContent = words;
  note.hidden = !words;
  if (seconds) announced = setTimeout(() => announce("", 0), seconds * 1000);
}

// The feed.

let source = null;
let opened = false;
let versions = 0;
let due = false;

function take(message) {
  skew = Date.now() / 1000 - message.time;
  flight = message.flight;
  state = message.state;
  for (const bucket of message.figures ?? []) figures.set(bucket[0], bucket);
  const oldest = Math.floor(message.time / BUCKET_SECONDS) - BUCKETS;
  for (const place of figures.keys()) if (place < oldest) figures.delete(place);
  if (!due) {
    due = true;
    requestAnimationFrame(() => {
      due = false;
      render();
      renderFigures();
      renderService();
    });
  }
}

function upsert(row) {
  const before = live.get(row.id);
  if (before) Object.assign(before, row, { version: ++versions });
  else live.set(row.id, { ...row, version: ++versions });
}

function connect() {
  source = new EventSource("/events");
  source.addEventListener("snapshot", (event) => {
    const message = JSON.parse(event.data);
    const ids = new Set(message.live.map((row) => row.id));
    for (const id of live.keys()) if (!ids.has(id)) live.delete(id);
    message.live.forEach(upsert);
    recent = message.recent.reverse();
    for (const row of recent) row.version = ++versions;
    figures = new Map();
    // A full list hides what was before it.
    const since = recent.length >= MOST_RECENT ? recent.at(-1).ended : message.time - BUCKETS * BUCKET_SECONDS;
    knownSince = opened ? Math.min(knownSince, since) : since;
    if (!opened && message.state?.keyed) tellCapture("/capture");
    opened = true;
    document.body.classList.remove("stale");
    announce("", 0);
    take(message);
  });
  source.addEventListener("batch", (event) => {
    const message = JSON.parse(event.data);
    for (const id of message.remove ?? []) live.delete(id);
    (message.upsert ?? []).forEach(upsert);
    for (const row of message.ended ?? []) row.version = ++versions;
    if (message.ended) recent = [...message.ended.reverse(), ...recent].slice(0, MOST_RECENT);
    take(message);
  });
  source.addEventListener("error", () => {
    document.body.classList.add("stale");
    renderService();
    if (source.readyState === EventSource.CLOSED) reconnect();
    else if (opened) announce("The connection to the proxy is lost; trying again.", 0);
  });
}

/** Find out why there are no events. */
async function reconnect() {
  const answer = await fetch("/requests/0").catch(() => null);
  if (answer?.status === 401) {
    location.reload(); // to the form that asks for the key
    return;
  }
  announce(answer ? "There are too many pages like this one open; close one." : "The proxy does not answer; trying again.", 0);
  setTimeout(connect, 5000);
}

// Details of one request.

const STEPS = [
  ["decided", "Reading the request", ""],
  ["queued", "Waiting for a slot", "waiting"],
  ["connected", "Connecting", ""],
  ["head", "Waiting for the head", ""],
  ["firstEvent", "Waiting for the first event", ""],
  ["lastEvent", "Streaming", "streaming"],
  ["ended", "Answering", ""],
];

/** The spans of time between the steps of a request that are known; the last one may still go on. */
function spans(row, end) {
  const times = { ...row.times, queued: row.times.connecting };
  const found = [];
  let from = times.began;
  for (const [name, label, kind] of STEPS) {
    const to = times[name];
    if (!known(to) || to < from) continue;
    if (name !== "queued" || to - from > 0.001) found.push({ label, kind, from, to });
    from = to;
  }
  if (row.live) {
    const moved = known(times.lastEvent);
    const label = moved ? "Since the last event" : `${row.phase[0].toUpperCase()}${row.phase.slice(1)} …`;
    found.push({ label, kind: moved ? "waiting" : "", from, to: Math.max(from, end) });
  }
  return found;
}

function showPairs(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
}

let detailed = "";
let refresh = 0;

async function openDetails(id) {
  detailed = id;
  const dialog = byId("details");
  if (!(await showDetails())) {
    announce("Nothing more is known of that request.", 6);
    return;
  }
  if (!dialog.open) dialog.showModal();
  showCaptured(id);
}

async function showDetails() {
  const id = detailed;
  clearTimeout(refresh);
  const answer = await fetch(`/requests/${encodeURIComponent(id)}`).catch(() => null);
  if (!answer?.ok || id !== detailed) return false;
  const row = await answer.json();
  const end = row.times.ended ?? now();
  const total = Math.max(0.001, end - row.times.began);

  byId("details-title").textContent = `${row.method} ${row.path}`;
  const problem = byId("details-problem");
  problem.hidden = !row.problem;
  problem.textContent = [row.code, row.problem].filter(Boolean).join(": ");
  const usage = row.usage;
  const facts = [
    ["Status", row.live ? row.phase : String(row.status)],
    ["Mode", row.why ? `${row.mode}, because: ${row.why}` : row.mode],
    ["Model", row.model],
    ["Rule", row.rule],
    ["Upstream", row.upstream],
    ["Client", row.client],
    ["Request", row.requestId],
    ["Trace", row.traceId],
    ["Started", `${new Date(row.began * 1000).toISOString().replace("T", " ").replace("Z", "")} UTC`],
    [row.live ? "Elapsed" : "Took", duration(total)],
    ["Content events", number(row.events)],
    ["Tokens", usage && [["in", usage.input], ["cached", usage.cached], ["out", usage.output], ["reasoning", usage.reasoning]]
      .filter(([, count]) => count).map(([name, count]) => `${WHOLE.format(count)} ${name}`).join(", ")],
    ["Bytes", `${bytes(row.received)} from the client, ${bytes(row.read)} from the upstream, ${bytes(row.sent)} to the client`],
    ["Note", row.detail],
  ];
  showPairs(byId("details-facts"), facts.filter(([, value]) => value));

  byId("details-steps").replaceChildren(...spans(row, end).map(({ label, kind, from, to }) => {
    const bar = element("i");
    bar.style.left = `${(100 * (from - row.times.began)) / total}%`;
    bar.style.width = `${(100 * (to - from)) / total}%`;
    const lane = element("span", "lane", bar);
    lane.dataset.step = kind;
    return element("li", "", element("span", "", label), lane, element("span", "took", duration(to - from)));
  }));

  byId("details-attempts").hidden = !row.attempts.length;
  byId("details-attempts").querySelector("ol").replaceChildren(...row.attempts.map((why) => element("li", "", why)));
  showPairs(byId("details-request"), row.request);
  showPairs(byId("details-response"), row.response.length ? row.response : [["", "none"]]);
  if (row.live) refresh = setTimeout(() => byId("details").open && showDetails(), 1000);
  return true;
}

// The capture, where there is one: it needs a key.

let capture = null;

async function tellCapture(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const answer = await fetch(path, options).catch(() => null);
  if (answer?.ok) showCapture(await answer.json());
  else if (body !== undefined) announce("The capture cannot be changed now.", 6);
}

function showCapture(found) {
  capture = found;
  byId("tab-capture").hidden = false;
  setText(byId("tab-capture").querySelector(".count"), found.exchanges ? String(found.exchanges) : "");
  const state = found.always ? "Every request is captured." : found.wanted ? `The next ${found.wanted} are captured.` : "It is off.";
  setText(byId("capture-state"), `${state} ${number(found.exchanges)} kept, ${bytes(found.bytes)} of ${bytes(found.maxBytes)}.`);
  byId("capture-start").hidden = found.always || found.wanted > 0;
  byId("capture-stop").hidden = found.always || !found.wanted;
  byId("capture-files").hidden = !found.exchanges;
}

/** Offer the files of one request, if it was captured. */
async function showCaptured(id) {
  const links = byId("details-capture");
  links.hidden = true;
  if (!capture?.exchanges) return;
  const address = `/capture/${encodeURIComponent(id)}`;
  const answer = await fetch(`${address}.curl`, { method: "HEAD" }).catch(() => null);
  if (!answer?.ok || id !== detailed) return;
  for (const link of links.querySelectorAll("a")) link.href = `${address}.${link.dataset.form}`;
  links.hidden = false;
}

// Tabs, filter, start.

function selectTab(tab) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const selected = each === tab;
    each.setAttribute("aria-selected", String(selected));
    each.tabIndex = selected ? 0 : -1;
    if (selected && each.id === "tab-capture") tellCapture("/capture");
    byId(each.getAttribute("aria-controls")).hidden = !selected;
  }
  render();
}

function start() {
  const tabs = () => [...document.querySelectorAll("[role=tab]:not([hidden])")];
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.addEventListener("click", () => selectTab(tab));
    tab.addEventListener("keydown", (event) => {
      const all = tabs();
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = step ? all[(all.indexOf(tab) + step + all.length) % all.length] : { Home: all[0], End: all.at(-1) }[event.key];
      if (!next) return;
      event.preventDefault();
      next.focus();
      selectTab(next);
    });
  }

  const form = byId("filter");
  const read = () => {
    for (const name of Object.keys(filter)) filter[name] = form.elements[name].value.trim();
    shownRecent = PAGE_ROWS;
    animate = false;
    render();
  };
  form.addEventListener("input", read);
  form.addEventListener("reset", () => setTimeout(read));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => {
    shownRecent += 4 * PAGE_ROWS;
    animate = false;
    render();
  });
  byId("capture-start").addEventListener("click", () => tellCapture("/capture", { requests: 20 }));
  byId("capture-stop").addEventListener("click", () => tellCapture("/capture", { requests: 0 }));
  pressTwice(byId("capture-clear"), "the capture", () => tellCapture("/capture/clear", {}));
  byId("details").addEventListener("close", () => {
    detailed = "";
  });
  byId("details").addEventListener("click", (event) => {
    if (event.target === event.currentTarget) event.currentTarget.close();
  });

  // Ages and silences go on between the events; a page that nobody sees need not.
  setInterval(() => {
    if (!opened || document.hidden) return;
    liveTable.tick((id) => live.get(id));
    measureRates();
    renderFigures();
    render();
    if (capture && !byId("panel-capture").hidden) tellCapture("/capture");
  }, 1000);
  connect();
}

start();

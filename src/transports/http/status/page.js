// The page: asks the server for what is new once a second, and shows it.

const STEPS = { 1: { span: 300, name: "5 minutes" }, 30: { span: 21600, name: "6 hours" } };
const RECENT = 10;
const $ = (id) => document.getElementById(id);
const element = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
const most = (rows, name) => rows.reduce((top, row) => row[name] === null ? top : Math.max(top ?? 0, row[name]), null);

/** A row that stands for several: counts add up, levels are the last ones, latencies the highest, ages the mean. */
const merged = (rows) => {
  const whole = { ...rows.at(-1) };
  for (const name of ["seconds", "hits", "misses", "evictions", "expired_removals", "rejected_writes"]) whole[name] = sum(rows, name);
  whole.requests = rows.some((row) => row.requests !== null) ? sum(rows, "requests") : null;
  for (const name of ["latency_p50_seconds", "latency_p99_seconds"]) whole[name] = most(rows, name);
  const aged = rows.filter((row) => row.eviction_age_p50_seconds !== null);
  const evicted = sum(aged, "evictions");
  whole.eviction_age_p50_seconds = evicted ? aged.reduce((total, row) => total + row.eviction_age_p50_seconds * row.evictions, 0) / evicted : null;
  return whole;
};
const per = (name) => (row) => row[name] === null ? null : row[name] / row.seconds;
const reads = (row) => row.hits + row.misses;
const ratio = (row) => reads(row) ? row.hits / reads(row) : null;
const said = (value, format) => value === null ? "–" : format(value);

/** The plots. `figure` is what stands large above one: of the last ten seconds, and of the newest second. */
const PLOTS = [
  {
    id: "hit-ratio", title: "Hit ratio", format: percent, ratio: true,
    series: [{ name: "reads that hit", look: "c0", area: true, value: ratio }],
    figure: (recent) => [said(ratio(recent), percent), reads(recent) ? `of ${count(reads(recent) / recent.seconds)} reads/s` : "no reads now"],
  },
  {
    id: "throughput", title: "Throughput", format: rate,
    series: [
      { name: "keys read", look: "c2", area: true, value: (row) => reads(row) / row.seconds },
      { name: "requests", look: "c0", dash: 1, value: per("requests") },
    ],
    figure: (recent) => recent.requests === null
      ? [rate(reads(recent) / recent.seconds), "keys read"]
      : [rate(recent.requests / recent.seconds), `requests, ${whole(recent.active_requests)} in flight`],
  },
  {
    id: "latency", title: "Latency of requests", format: seconds, logarithmic: true,
    series: [
      { name: "p99", look: "c1", value: (row) => row.latency_p99_seconds },
      { name: "p50", look: "c0", dash: 1, value: (row) => row.latency_p50_seconds },
    ],
    figure: (recent) => [said(recent.latency_p99_seconds, seconds), recent.latency_p99_seconds === null ? "no requests now" : `p99, and ${seconds(recent.latency_p50_seconds)} p50`],
  },
  {
    id: "memory", title: "Memory", format: bytes, limit: (answer) => answer.max_memory_bytes,
    series: [{ name: "charged to entries", look: "c2", area: true, value: (row) => row.memory_usage_bytes }],
    figure: (recent, answer) => [bytes(recent.memory_usage_bytes), `of ${bytes(answer.max_memory_bytes)}, ${percent(recent.memory_usage_bytes / answer.max_memory_bytes)}`],
  },
  {
    id: "entries", title: "Entries", format: count, limit: (answer) => answer.max_entries,
    series: [{ name: "resident", look: "c5", area: true, value: (row) => row.entries }],
    figure: (recent, answer) => [whole(recent.entries), [
      answer.max_entries === null ? "no limit" : `of ${whole(answer.max_entries)}`,
      recent.entries ? `${bytes(recent.memory_usage_bytes / recent.entries)} each` : "",
    ].filter(Boolean).join(", ")],
  },
  {
    id: "evictions", title: "Evictions", format: rate,
    series: [
      { name: "evicted", look: "c1", area: true, value: per("evictions") },
      { name: "expired", look: "c0", dash: 1, value: per("expired_removals") },
      { name: "refused writes", look: "c3", dash: 2, seldom: true, value: per("rejected_writes") },
    ],
    figure: (recent) => [rate(recent.evictions / recent.seconds), recent.eviction_age_p50_seconds === null ? "for room" : `for room, at an age of ${seconds(recent.eviction_age_p50_seconds)}`],
  },
];

const state = { step: 1, started: null, answer: null, offset: 0, cursor: null, paused: false, lost: null };
const kept = { 1: { rows: [], next: 0, due: 0 }, 30: { rows: [], next: 0, due: 0 } };

/** Fetches what is new of one step. A server that was started anew is asked for everything. */
async function load(step) {
  const own = kept[step];
  const response = await fetch(`history?step=${step}&since=${own.next}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  const answer = await response.json();
  const started = answer.timestamp - answer.uptime_seconds;
  if (state.started !== null && (Math.abs(started - state.started) > 2 || answer.next < own.next)) {
    for (const each of Object.values(kept)) Object.assign(each, { rows: [], next: 0, due: 0 });
    state.started = null;
    return load(step);
  }
  state.started ??= started;
  const names = Object.keys(answer.columns);
  own.rows.push(...answer.columns.time.map((_, row) => Object.fromEntries(names.map((name) => [name, answer.columns[name][row]]))));
  own.rows = own.rows.filter((row) => row.time > answer.timestamp - STEPS[step].span - step);
  own.next = answer.next;
  own.due = performance.now() + step * 1000;
  state.answer = answer;
  state.offset = answer.timestamp - performance.now() / 1000;
}

let timer;
let asking = false;
/** Asks now, and again a second later, for as long as somebody looks. While paused, only for a step of which nothing is known yet. */
async function poll() {
  clearTimeout(timer);
  if (asking || document.hidden || (state.paused && kept[state.step].next > 0)) return;
  asking = true;
  try {
    if (!state.paused || state.step === 1) await load(1);
    if (state.step !== 1 && performance.now() >= kept[state.step].due) await load(state.step);
    state.lost = null;
  } catch (error) {
    state.lost ??= { since: Date.now() / 1000, why: { TimeoutError: "nothing within 5 s", TypeError: "no connection" }[error.name] ?? error.message };
  }
  asking = false;
  render();
  timer = setTimeout(poll, 1000);
}

/** The cards, once; what changes in them is filled in by `render`. */
const cards = PLOTS.map((kind) => {
  const svg = shape("svg", { class: "plot", tabindex: 0, role: "slider", "aria-label": `${kind.title}: arrow keys move in time`, "aria-valuemin": 0 });
  const [strong, note] = [element("strong"), element("span")];
  const legend = element("ul", { class: "legend" });
  const table = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${kind.title} as a table` });
  const details = element("details", {}, element("summary", {}, "Table", element("span", { class: "unseen" }, ` of ${kind.title}`)), table);
  details.addEventListener("toggle", render);
  const card = element("article", { class: "card", id: kind.id, "aria-labelledby": `${kind.id}-title` },
    element("h2", { id: `${kind.id}-title` }, kind.title), element("p", { class: "figure" }, strong, note), legend, svg, details);
  const rows = () => drawn(kept[state.step].rows, svg.clientWidth).rows;
  const point = (all, index) => {
    state.cursor = all[Math.max(0, Math.min(all.length - 1, index))]?.time ?? null;
  };
  svg.addEventListener("pointermove", (event) => {
    const [left, right] = [MARGIN.left, svg.clientWidth - MARGIN.right];
    const { from, to } = span();
    const time = from + (to - from) * (event.clientX - svg.getBoundingClientRect().left - left) / (right - left);
    const all = rows();
    const after = all.findIndex((row) => row.time >= time);
    const nearer = after > 0 && time - all[after - 1].time < all[after].time - time;
    point(all, after < 0 ? all.length - 1 : after - nearer);
    renderSoon();
  });
  const leave = () => {
    state.cursor = null;
    renderSoon();
  };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const all = rows();
    const now = all.findIndex((row) => row.time === state.cursor);
    const from = now < 0 ? all.length : now;
    const to = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, PageUp: from + 10, PageDown: from - 10, Home: 0, End: Infinity }[event.key];
    if (event.key === "Escape") leave();
    if (to === undefined) return;
    event.preventDefault();
    point(all, to);
    render();
  });
  $("cards").append(card);
  return { kind, svg, strong, note, legend, details, table };
});

/** What is drawn: a row for every three pixels at most, standing for whole steps. */
function drawn(rows, width) {
  const { step } = state;
  const size = step * Math.ceil(STEPS[step].span / step / Math.max(20, width / 3));
  const groups = Map.groupBy(rows, (row) => Math.floor((row.time - step / 2) / size));
  const merge = [...groups.values()].map(merged);
  // One that has only begun says little yet.
  if (merge.length > 1 && merge.at(-1).seconds < size / 2) merge.pop();
  return { gap: size + 2 * step, rows: merge };
}

/** From when to when the plots run: to now by the server's clock, to the last answer where it is lost or paused. */
function span() {
  const frozen = state.lost || state.paused || document.hidden;
  const to = frozen ? state.answer.timestamp : state.offset + performance.now() / 1000;
  return { from: to - STEPS[state.step].span, to };
}

let frame = 0;
/** Once for all that happens before the next picture. */
const renderSoon = () => {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(render);
};

function render() {
  const { answer, lost } = state;
  tell(answer, lost);
  if (!answer) return;
  const all = kept[state.step].rows;
  const newest = kept[1].rows.slice(-RECENT);
  for (const card of cards) {
    const { kind, svg } = card;
    const { gap, rows } = drawn(all, svg.clientWidth);
    const cursor = rows.find((row) => row.time === state.cursor);
    const series = kind.series.filter(({ value, seldom }) => rows.some((row) => seldom ? value(row) : value(row) !== null));
    if (newest.length) [card.strong.textContent, card.note.textContent] = kind.figure(merged(newest), answer);
    const limit = kind.limit?.(answer);
    const entry = (look, dashes, ...text) => element("li", {}, shape("svg", { width: 22, height: 6, "aria-hidden": true, class: look },
      shape("line", { class: "swatch", x1: 0, x2: 22, y1: 3, y2: 3, "stroke-dasharray": dashes })), ...text);
    card.legend.replaceChildren(
      ...series.map(({ name, look, dash = 0, value }) => entry(look, DASHES[dash], name, ...(cursor ? [element("b", {}, said(value(cursor), kind.format))] : []))),
      ...(limit && !cursor ? [entry("limited", DASHES[1], "limit")] : []));
    draw(svg, { kind, series, rows, span: span(), gap, limit, cursor });
    svg.setAttribute("aria-valuemax", Math.max(0, rows.length - 1));
    svg.setAttribute("aria-valuenow", Math.max(0, cursor ? rows.indexOf(cursor) : rows.length - 1));
    const shown = cursor ?? rows.at(-1);
    svg.setAttribute("aria-valuetext", shown
      ? `${moment(shown.time)}: ${series.map(({ name, value }) => `${name} ${said(value(shown), kind.format)}`).join(", ")}` : "nothing yet");
    if (card.details.open) card.table.replaceChildren(tabulate(kind, series, all));
  }
  advise(answer, all.length ? all : kept[1].rows);
  facts(answer);
}

/** Ten rows that cover what is shown, the newest first. */
function tabulate(kind, series, rows) {
  const size = Math.ceil(rows.length / 10) || 1;
  const lines = [];
  for (let end = rows.length; end > 0; end -= size) lines.push(merged(rows.slice(Math.max(0, end - size), end)));
  return element("table", {},
    element("caption", {}, kind.logarithmic ? "Highest until this time" : "Until this time"),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "time"), ...series.map(({ name }) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...lines.map((row) => element("tr", {}, element("th", { scope: "row" }, moment(row.time)),
      ...series.map(({ value }) => element("td", {}, said(value(row), kind.format)))))));
}

/** Only what has changed is touched: a selection lives on, and screen readers tell nothing twice. */
const fill = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const write = (id, text) => fill($(id), text);

/** How the server is, or that nobody knows. */
function tell(answer, lost) {
  const [text, look] = lost ? ["Not answering", "gone"] : state.paused ? ["Paused", ""]
    : answer === null ? ["Connecting", ""] : answer.status === "ready" ? ["Ready", "ready"] : [answer.status[0].toUpperCase() + answer.status.slice(1), "warned"];
  write("state", text);
  $("state").className = `state ${look}`;
  document.title = lost ? "✕ tiny-cache: not answering" : "tiny-cache";
  document.body.classList.toggle("stale", lost !== null);
  $("alarm").hidden = !lost;
  write("alarm", lost ? `No answer since ${moment(lost.since)} (${lost.why}).${answer ? " What stands below is how it was." : ""} Asking again every second.` : "");
  if (answer) write("about", [location.host, `up ${seconds(answer.uptime_seconds)}`, `version ${answer.version}`].join(" · "));
}

/** Whether more memory would help, as far as evictions and refused writes tell. */
function advise(answer, rows) {
  if (!rows.length) return;
  const all = merged(rows);
  const length = all.seconds < STEPS[state.step].span * 0.9 ? seconds(all.seconds) : STEPS[state.step].name;
  const misses = reads(all) ? all.misses / reads(all) : 0;
  // By Little's law entries stay for as long as it takes to replace them all.
  const stay = all.entries / ((all.evictions + all.expired_removals) / all.seconds);
  const age = all.eviction_age_p50_seconds ?? stay;
  // The limit that was met: what is left of the entries now may have expired since.
  const filled = most(rows, "memory_usage_bytes") / answer.max_memory_bytes;
  const byItems = answer.max_entries !== null && most(rows, "entries") / answer.max_entries > filled;
  const limit = byItems ? ` The limit that they met is max_items (${whole(answer.max_entries)}), at ${percent(filled)} of the memory: raise that one.` : "";
  const left = `Entries were evicted after about ${seconds(age)}, and ${percent(misses)} of reads missed in the last ${length}.${limit}`;
  const measure = "To find out, record a trace and ask “tiny-cache curve”.";
  const writes = (number) => number === 1 ? "1 write was" : `${whole(number)} writes were`;
  const refused = all.rejected_writes ? ` ${writes(all.rejected_writes)} refused: too large, or no room to be made.` : "";
  // Points tell refusals of both kinds together, and the totals tell whether there were any for room.
  const noRoom = all.rejected_writes > 0 && answer.rejected_capacity_total > 0;
  const [verdict, reason] = all.evictions === 0
    ? noRoom ? ["For some writes.", `Nothing was evicted in the last ${length}, but there was no room for all that was written: a higher max_memory makes some.`]
      : reads(all) === 0 ? ["Nothing to tell yet.", `There were no reads and no evictions in the last ${length}.`]
        : ["No.", `Nothing was evicted in the last ${length}: what was missed (${percent(misses)} of reads) had never been stored, was deleted, or had expired.`]
    : misses < 0.01 ? ["Hardly.", left]
      : age < 60 ? [byItems ? "No, but more entries would." : "Very likely.", `${left} ${measure}`]
        : age < 3600 ? [byItems ? "No, but more entries might." : "Perhaps.", `${left} ${measure}`] : ["Probably not much.", `${left} ${measure}`];
  write("verdict", verdict);
  write("reason", reason + refused);
}

function facts(answer) {
  if (answer.policy === undefined) return;
  const listed = [
    ["policy", answer.policy || "the store's own"], ["store", answer.store], ["shards", whole(answer.shards)],
    ["largest value", bytes(answer.max_value_bytes)], ["requests in flight", whole(answer.active_requests)], ["hits", whole(answer.hits_total)],
    ["misses", whole(answer.misses_total)], ["evicted", whole(answer.evictions_total)], ["expired", whole(answer.expired_removals_total)],
    ["refused: too large", whole(answer.rejected_oversize_total)], ["refused: no room", whole(answer.rejected_capacity_total)], ["not admitted", whole(answer.rejected_admission_total)],
  ];
  const shown = $("facts").children;
  listed.forEach(([name, value], place) => {
    if (!shown[place]) $("facts").append(element("div", {}, element("dt", {}, name), element("dd")));
    fill(shown[place].lastChild, value);
  });
}

for (const choice of document.querySelectorAll("input[name=step]")) {
  choice.addEventListener("change", () => {
    Object.assign(state, { step: Number(choice.value), cursor: null });
    poll();
    render();
  });
  // A browser may remember the choice of the visit before.
  if (choice.checked) state.step = Number(choice.value);
}
$("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", state.paused);
  write("pause", state.paused ? "Go on" : "Pause");
  render();
  poll();
});
document.addEventListener("visibilitychange", poll);
new ResizeObserver(renderSoon).observe($("cards"));
poll();

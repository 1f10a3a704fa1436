
"use strict";
// Figures as people read them, and plots over time.

const SPACE = "\u00a0";
const digits = (value, places) => value.toLocaleString("en", { maximumFractionDigits: places });
/** About three digits that say something. */
const short = (value) => digits(value, value < 10 ? 2 : value < 100 ? 1 : 0);
/** `units` are [size, name, from where on], the largest first. */
const scaled = (value, units, write = short) => {
  const [size, unit] = units.find(([size, , from = size]) => value >= from * 0.9995) ?? units.at(-1);
  return value === 0 ? "0" : write(value / size) + (unit && SPACE + unit);
};
const whole = (value) => value.toLocaleString("en");
const count = (value) => scaled(value, [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]);
const rate = (value) => value === 0 ? "0" : value < 999.5 ? `${short(value)}${SPACE}/s` : `${count(value)}/s`;
const percent = (value) => {
  const whole = Math.abs(value * 100 - Math.round(value * 100)) < 1e-9 || value > 0.9995;
  return (value * 100).toFixed(whole ? 0 : 1) + SPACE + "%";
};
const bytes = (value) => scaled(value, [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]]);
const seconds = (value) => scaled(value, [[86400, "days", 172800], [3600, "h", 7200], [60, "min", 120], [1, "s"], [1e-3, "ms"], [1e-6, "µs"]],
  (value) => digits(value, value < 10 ? 1 : 0));
const clock = (time, options) => new Date(time * 1000).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...options });
const moment = (time) => clock(time, { second: "2-digit" });

const shape = (name, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

const DASHES = ["none", "6 3", "2 3"];
const MARGIN = { left: 52, right: 10, top: 8, bottom: 20 };

/** Round steps from nothing to above `max`. */
function ticks(max) {
  const raw = (max || 1) / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw * 0.999);
  return Array.from({ length: Math.ceil(max / step || 1) + 1 }, (_, index) => index * step);
}

/** Steps of 1, 2, 5 around what is there. */
function logTicks(min, max) {
  const all = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power++) {
    for (const factor of [1, 2, 5]) all.push(factor * 10 ** power);
  }
  const first = all.findLastIndex((tick) => tick <= min * 1.001);
  const last = all.findIndex((tick) => tick >= max * 0.999);
  return all.slice(Math.max(0, first), Math.max(last, first + 1) + 1);
}

/** Where values go on the height of a plot: `share` of it, and which `steps` are marked. */
function scale(kind, values, limit) {
  if (kind.logarithmic) {
    const seen = values.filter((value) => value > 0);
    const all = logTicks(seen.length ? Math.min(...seen) : 1e-4, seen.length ? Math.max(...seen) : 1e-3);
    const [low, high] = [Math.log(all[0]), Math.log(all.at(-1))];
    const decades = all.filter((tick) => Math.abs(Math.log10(tick) % 1) < 1e-9);
    return { steps: all.length > 6 ? decades : all, share: (value) => (Math.log(value) - low) / (high - low) };
  }
  if (kind.ratio) {
    const low = [0.99, 0.9, 0.8, 0.5].find((low) => Math.min(...values, 1) >= low && values.length) ?? 0;
    return { low, steps: [low, (low + 1) / 2, 1], share: (value) => (value - low) / (1 - low) };
  }
  if (limit) return { low: 0, steps: [0, limit / 2, limit], share: (value) => value / (limit * 1.06) };
  const steps = ticks(Math.max(...values, 0));
  return { low: 0, steps, share: (value) => value / steps.at(-1) };
}

/** The lines of one series, broken where nothing is known. */
function trace(points, gap) {
  const runs = [];
  let before;
  for (const point of points) {
    if (point.y === null) before = undefined;
    else {
      if (before === undefined || point.row.time - before.row.time > gap) runs.push([]);
      runs.at(-1).push(point);
      before = point;
    }
  }
  return runs;
}

/**
 * Draws into `svg`. `kind` says how (see PLOTS), `rows` what, `span` from when to when; `gap` is how long nothing may be known
 * before a line breaks, `limit` what cannot be exceeded, `cursor` the row that is pointed at.
 */
function draw(svg, { kind, series, rows, span, gap, limit, cursor }) {
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  const [left, right] = [MARGIN.left, width - MARGIN.right];
  const [top, bottom] = [MARGIN.top, height - MARGIN.bottom];
  if (right <= left || bottom <= top) return;
  const values = series.map(({ value }) => rows.map((row) => value(row) ?? null));
  const { low, steps, share } = scale(kind, values.flat().filter((value) => value !== null), limit);
  const x = (time) => left + (right - left) * (time - span.from) / (span.to - span.from);
  const y = (value) => bottom - (bottom - top) * Math.max(0, Math.min(1, share(value)));
  const at = (value) => value.toFixed(1);
  const drawn = [];
  for (const step of steps) {
    drawn.push(shape("line", { class: "rule", x1: left, x2: right, y1: at(y(step)), y2: at(y(step)) }));
    drawn.push(shape("text", { x: left - 6, y: at(y(step) + 4), "text-anchor": "end" }, kind.format(step)));
  }
  const unit = span.to - span.from > 3600 ? 3600 : 60;
  const every = unit * Math.ceil(48 * (span.to - span.from) / unit / (right - left));
  const offset = new Date(span.to * 1000).getTimezoneOffset() * 60;
  for (let time = Math.ceil((span.from - offset) / every) * every + offset; time <= span.to; time += every) {
    drawn.push(shape("line", { class: "axis", x1: at(x(time)), x2: at(x(time)), y1: bottom, y2: bottom + 4 }));
    if (x(time) > left + 8 && x(time) < right - 8) {
      drawn.push(shape("text", { x: at(x(time)), y: height - 4, "text-anchor": "middle" }, clock(time)));
    }
  }
  drawn.push(shape("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  series.forEach(({ look, area, dash = 0 }, index) => {
    const group = shape("g", { class: `series ${look}` });
    const points = rows.map((row, place) => ({ row, y: values[index][place] }));
    for (const run of trace(points, gap)) {
      const path = run.map((point) => `${at(x(point.row.time))} ${at(y(point.y))}`).join("L");
      // An area tells an amount, so it must stand on nothing.
      if (area && low === 0) {
        const [first, last] = [run[0], run.at(-1)].map((point) => at(x(point.row.time)));
        group.append(shape("path", { class: "area", d: `M${first} ${bottom}L${path}L${last} ${bottom}Z` }));
      }
      group.append(shape("path", { class: "line", d: `M${path}${run.length === 1 ? "h.1" : ""}`, "stroke-dasharray": DASHES[dash] }));
    }
    if (cursor) {
      const value = values[index][rows.indexOf(cursor)] ?? null;
      if (value !== null) group.append(shape("circle", { class: "dot", cx: at(x(cursor.time)), cy: at(y(value)), r: 3.5 }));
    }
    drawn.push(group);
  });
  if (limit) drawn.push(shape("line", { class: "limit", x1: left, x2: right, y1: at(y(limit)), y2: at(y(limit)) }));
  if (cursor) {
    const middle = Math.max(left + 26, Math.min(right - 26, x(cursor.time)));
    drawn.push(
      shape("line", { class: "cursor", x1: at(x(cursor.time)), x2: at(x(cursor.time)), y1: top, y2: bottom }),
      shape("rect", { class: "tag", x: at(middle - 28), y: bottom + 3, width: 56, height: MARGIN.bottom - 3, rx: 3 }),
      shape("text", { class: "told", x: at(middle), y: height - 4, "text-anchor": "middle" }, moment(cursor.time)),
    );
  }
  svg.replaceChildren(...drawn);
}

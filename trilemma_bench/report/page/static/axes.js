// Scales, fronts and labels: plain functions of rows and columns.
// Okabe and Ito's colours, told apart by all kinds of eyes
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C00", "#7F7F7F"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

/** Text for plotly, which would read tags and entities. */
const literal = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
/** What papers state about the dataset of a group; undefined where that was not asked for. */
const papersOf = (group) => (Object.hasOwn(data.published, group.dataset) ? data.published[group.dataset] : undefined);
const valueOf = (row, index) => row.cells[index].value;
const axisTitle = (column) => literal(`${column.title}${column.unit ? `, ${column.unit}` : ""}${column.better ? ` (${column.better} is better)` : ""}`);

/** Times, and what may and does span orders of magnitude, on a logarithmic axis, as in the figures; a zero forbids it. */
function isLog(column, values) {
  const least = Math.min(...values), most = Math.max(...values);
  return least > 0 && (column.time || (column.log && most > data.log_from * least));
}

/** A plotly axis that holds `values`, and as much of the intervals' `ends` as does not squash them. */
function axis(column, values, ends, colours) {
  const log = isLog(column, values), scale = (numbers) => (log ? numbers.filter((value) => value > 0).map(Math.log10) : numbers);
  const within = extent(scale(values)), span = within[1] - within[0] || Infinity;
  const [least, most] = extent([...within, ...scale(ends).map((end) => Math.max(within[0] - span / 2, Math.min(end, within[1] + span / 2)))]);
  const room = Math.max(0.09 * (most - least), log ? 0.15 : 0.03 * Math.abs(most) || 0.05);
  return {
    type: log ? "log" : "linear", range: [least - room, most + room], title: { text: axisTitle(column), standoff: 12 },
    gridcolor: colours.line, zeroline: false, linecolor: colours.soft, ticks: "outside", tickcolor: colours.line, ...(log ? logTicks(least - room, most + room, column.time ? timeText : numberText) : {}),
  };
}

const extent = (numbers) => [Math.min(...numbers), Math.max(...numbers)];

/** Ticks between two powers of ten: each power over many decades, 1, 2 and 5 times it over few. */
function logTicks(least, most, text) {
  const steps = most - least > 2.5 ? [1] : most - least > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  const values = [];
  for (let power = Math.floor(least); power <= most; power++) values.push(...steps.map((step) => step * 10 ** power));
  const shown = values.filter((value) => Math.log10(value) >= least && Math.log10(value) <= most);
  return { tickvals: shown, ticktext: shown.map(text) };
}

function numberText(value) {
  return value >= 1e-3 && value < 1e6 ? Number(value.toPrecision(3)).toLocaleString("en") : value.toExponential(0);
}

function timeText(seconds) {
  const [size, unit] = [[3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([least]) => seconds >= 0.9995 * least) ?? [1e-9, "ns"];
  return `${Number((seconds / size).toPrecision(3))} ${unit}`;
}

/** Of points {x, y}, those that no other beats in both, by x; `signs` are 1 where more is better, −1 where less is. */
function frontOf(points, [signX, signY]) {
  const ordered = [...points].sort((a, b) => signX * (b.x - a.x) || signY * (b.y - a.y));
  const front = [];
  for (const point of ordered) if (!front.length || signY * (point.y - front.at(-1).y) > 0) front.push(point);
  return front.sort((a, b) => a.x - b.x);
}

const unitsOf = (column) => data.units[column.time ? "seconds" : column.unit] ?? {};

/** The number that `text` says, in the unit that has the size 1: 0.02 for "20 ms"; null where it says none. As format.amount. */
function amount(text, units) {
  const [, number, exponent = "", unit] = /^([+-]?(?:\d+\.?\d*|\.\d+))(e[+-]?\d+)?\s*(\D*)$/i.exec(text.trim().replace("\u03bc", "µ")) ?? [];
  const size = unit === "" ? 1 : Object.hasOwn(units, unit ?? "") ? units[unit] : NaN, value = Number(number + exponent) * size;
  return Number.isFinite(value) ? value : null;
}

const canvas = document.createElement("canvas").getContext("2d");
function textWidth(text, font) { canvas.font = font; return canvas.measureText(text).width; }

const PLACES = [[1, 0], [0.8, -1], [0.8, 1], [0, -1], [0, 1], [-1, 0], [-0.8, -1], [-0.8, 1]];

/**
 * Where labels fit without covering marks or one another, nor `lines` where that can be helped: {point, dx, dy} for those
 * that do. points, others: {px, py, r}; lines: boxes. All in pixels.
 */
function placeLabels(points, others, lines, width, height) {
  const taken = [...points, ...others].map(({ px, py, r }) => [px - r, py - r, px + r, py + r]);
  const placed = [];
  for (const point of points) {
    const spots = spotsAround(point).filter(({ box }) => box[0] >= 0 && box[1] >= 0 && box[2] <= width && box[3] <= height && !taken.some((other) => overlap(box, other)));
    const spot = spots.find(({ box }) => !lines.some((line) => overlap(box, line))) ?? spots[0];
    if (!spot) continue;
    taken.push(spot.box);
    placed.push({ point, ...spot });
  }
  return placed;
}

function spotsAround({ px, py, r, text }) {
  const w = textWidth(text, "12px system-ui") + 4, h = 15;
  return [5, 12, 20].flatMap((gap) => PLACES.map(([x, y]) => {
    const dx = x * (r + gap + w / 2), dy = y * (r + gap / (x ? 2 : 1) + h / 2);
    return { dx, dy, box: [px + dx - w / 2, py + dy - h / 2, px + dx + w / 2, py + dy + h / 2] };
  }));
}

/** Thin boxes along a line through `points` ({px, py}), in steps across ("hv") or up ("vh") first. */
function stepBoxes(points, shape) {
  return points.slice(1).flatMap((to, i) => {
    const from = points[i], corner = shape === "hv" ? [to.px, from.py] : [from.px, to.py];
    return [boxOf([from.px, from.py], corner), boxOf(corner, [to.px, to.py])];
  });
}

const boxOf = ([x0, y0], [x1, y1]) => [Math.min(x0, x1) - 1, Math.min(y0, y1) - 1, Math.max(x0, x1) + 1, Math.max(y0, y1) + 1];
const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

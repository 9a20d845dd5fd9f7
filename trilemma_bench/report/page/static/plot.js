// The trilemma drawn by plotly: flat, in space, as radar, and as curves of models that were sampled in several ways.
const MOST_NAMED = 14, MOST_BARS = 80, MOST_RADAR = COLOURS.length, MOST_OBSTACLES = 300, MOST_THIN_CURVES = 12, MOST_CURVES = 16;
// plotly's own set of buttons has one that sends the chart to a server: each view names the few that it has
const FLAT_BUTTONS = ["toImage", "zoom2d", "pan2d", "resetScale2d"];
const BUTTONS = { flat: FLAT_BUTTONS, curves: FLAT_BUTTONS, space: ["toImage", "resetCameraDefault3d"], radar: ["toImage"] };
const CONFIG = { responsive: true, displaylogo: false, plotlyServerURL: "" };

/** Draws `state.rows` of `state.group` as `state.view` asks. `open` is called with the row whose mark is clicked. */
function drawPlot(state, open) {
  const target = byId("plot"), { traces, layout, points, legend } = VIEWS[state.view](state, target.clientWidth);
  const colours = theme();
  layout.height ??= heightFor(target.clientWidth);
  Object.assign(layout, {
    paper_bgcolor: colours.page, plot_bgcolor: colours.page, font: { color: colours.ink, family: "system-ui, sans-serif", size: 13 },
    hovermode: "closest", dragmode: layout.dragmode ?? "zoom", modebar: { bgcolor: "transparent", color: colours.soft, activecolor: colours.ink },
  });
  for (const key of ["x", "y", "colour"]) byId(`axis-${key}`).parentElement.hidden = !CHOSEN[state.view].includes(key);
  byId("plot-legend").textContent = legend;
  byId("plot").dataset.points = points.length;
  hideTip();
  const drawn = Plotly.react(target, traces, layout, { ...CONFIG, modeBarButtons: [BUTTONS[state.view]] });
  listenToPlot(target, points, open, state.view === "flat" || state.view === "curves");
  return drawn;
}

/** Rows with values in all `columns`. */
const withValues = (rows, columns) => rows.filter((row) => columns.every((index) => valueOf(row, index) !== undefined));
const pointOf = (row, index) => row.cells[index]?.value;

function flatView(state, width) {
  const { group, x, y, colour } = state, columns = group.columns, colours = theme();
  const rows = withValues(state.rows.filter((row) => !row.reference), [x, y]);
  const [known, unknown] = [rows.filter((row) => valueOf(row, colour) !== undefined), rows.filter((row) => valueOf(row, colour) === undefined)];
  const small = rows.length > 200, narrow = width < 560;
  const marks = (some) => ({
    type: "scatter", mode: "markers", x: some.map((row) => valueOf(row, x)), y: some.map((row) => valueOf(row, y)),
    customdata: some.map((row) => row.number), hoverinfo: "none", showlegend: false,
  });
  const outline = (some) => ({ color: some.map((row) => (row.front ? colours.ink : colours.soft)), width: some.map((row) => (row.front ? 2.4 : 1)) });
  const traces = [
    ...referenceTraces(state, colours),
    ...publishedTraces(state, colours),
    ...thinCurves(group).map((curve) => lineOf(curve, state, { color: colours.soft, width: 1 })),
    frontTrace(rows, x, y, columns, colours),
    // another trace where the bar is turned: plotly would keep the room of the old one
    { ...marks(known), ...errorBars(known, x, y, colours), uid: narrow ? "bar-across" : "bar-up", marker: {
      size: small ? 7 : 12, line: outline(known), color: known.map((row) => valueOf(row, colour)), colorscale: "Cividis", showscale: differ(known.map((row) => valueOf(row, colour))),
      ...colourScale(columns[colour], known.map((row) => valueOf(row, colour))), colorbar: colourBar(columns[colour], narrow, colours),
    } },
    { ...marks(unknown), marker: { size: small ? 7 : 11, symbol: "diamond-open", color: colours.soft, line: { width: 1.5 } } },
    { ...marks(rows.filter((row) => row.near)), hoverinfo: "skip", marker: { size: small ? 12 : 19, symbol: "circle-open", color: colours.ink, line: { width: 1.2 } } },
    highlightTrace(colours),
  ];
  const layout = { ...flatLayout(state, rows, valuesBeside(state), narrow, colours), shapes: referenceLines(state, colours) };
  layout.annotations = labels(rows, frontPoints(rows, x, y, columns), state, layout, width, small ? 4 : 7, colours);
  return { traces, layout, points: reachable(rows, x, y), legend: flatLegend(state, rows) };
}

/** others: what is drawn besides `rows`, by key: {x: values, y: values}. */
function flatLayout({ x, y, group }, rows, others, narrow, colours) {
  const place = (index, more) => {
    const values = [...rows.map((row) => valueOf(row, index)), ...more];
    return values.length ? axis(group.columns[index], values, rows.flatMap((row) => row.cells[index].interval ?? []), colours) : {};
  };
  return { margin: { l: narrow ? 58 : 80, r: narrow ? 12 : 84, t: narrow ? 112 : 14, b: 58 }, xaxis: place(x, others.x), yaxis: place(y, others.y), showlegend: false };
}

/** Values of real data and of papers, which the axes must hold too. */
function valuesBeside(state) {
  const real = state.rows.filter((row) => row.reference), papers = publishedPoints(state);
  const beside = (index) => [...real.map((row) => pointOf(row, index)), ...papers.map((row) => row.values[state.group.columns[index].key])].filter((value) => value !== undefined);
  return { x: beside(state.x), y: beside(state.y) };
}

function colourBar(column, narrow, colours) {
  const title = { text: literal(column.title), side: narrow ? "top" : "right" };
  const base = { title, thickness: 12, outlinewidth: 0, tickfont: { color: colours.soft }, nticks: 6 };
  return narrow ? { ...base, orientation: "h", y: 1.0, yanchor: "bottom", len: 0.9 } : { ...base, len: 0.9 };
}

/** Rings the point that the keyboard has chosen; the last of the traces. */
const highlightTrace = (colours) => ({ type: "scatter", mode: "markers", x: [], y: [], hoverinfo: "skip", showlegend: false, marker: { size: 22, symbol: "circle-open", color: colours.link, line: { width: 3 } } });

/** Where more is better, from nothing to the best, of shares to 1; others have their own values. As in the figures. */
const colourScale = (column, values) => (column.better === "higher" && values.every((value) => value >= 0) ? { cmin: 0, cmax: Math.max(1, ...values) } : {});

/** Whether values are so far apart that colours can tell them. */
const differ = (values) => Math.max(...values) - Math.min(...values) > 0.01 * Math.max(...values.map(Math.abs));

function errorBars(rows, x, y, colours) {
  if (rows.length > MOST_BARS) return {};
  const bars = (index) => ({
    type: "data", symmetric: false, color: colours.soft, thickness: 1, width: 3,
    array: rows.map((row) => (row.cells[index].interval?.[1] ?? valueOf(row, index)) - valueOf(row, index)),
    arrayminus: rows.map((row) => valueOf(row, index) - (row.cells[index].interval?.[0] ?? valueOf(row, index))),
  });
  return { error_x: bars(x), error_y: bars(y) };
}

const signOf = (column) => (column.better === "higher" ? 1 : -1);

/** The border of what is reached in the two goals of the axes, where both are goals. */
function frontTrace(rows, x, y, columns, colours) {
  const points = frontPoints(rows, x, y, columns);
  return {
    type: "scatter", mode: "lines", x: points.map((point) => point.x), y: points.map((point) => point.y), hoverinfo: "skip", showlegend: false,
    line: { color: colours.soft, width: 1.5, dash: "dash", shape: frontShape(columns[x]) },
  };
}

function frontPoints(rows, x, y, columns) {
  const ranked = columns[x].better && columns[y].better && x !== y;
  return ranked ? frontOf(rows.map((row) => ({ x: valueOf(row, x), y: valueOf(row, y) })), [signOf(columns[x]), signOf(columns[y])]) : [];
}

const frontShape = (column) => (column.better === "higher" ? "vh" : "hv");

const thinCurves = (group) => (group.curves.length <= MOST_THIN_CURVES ? group.curves : []);

function lineOf(curve, { group, x, y }, line) {
  const rows = withValues(curve.rows.map((place) => group.rows[place]), [x, y]);
  return { type: "scatter", mode: "lines", x: rows.map((row) => valueOf(row, x)), y: rows.map((row) => valueOf(row, y)), line, hoverinfo: "skip", showlegend: false };
}

/** What real data reach: a star where both values are known, else a line. */
function referenceTraces({ rows, x, y }, colours) {
  return rows.filter((row) => row.reference && pointOf(row, x) !== undefined && pointOf(row, y) !== undefined).map((row) => ({
    type: "scatter", mode: "markers", x: [valueOf(row, x)], y: [valueOf(row, y)], customdata: [row.number], hoverinfo: "none", showlegend: false,
    marker: { symbol: "star-open", size: 16, color: colours.ink },
  }));
}

function referenceLines({ rows, x, y }, colours) {
  const line = { color: colours.ink, width: 1, dash: "dot" };
  return rows.filter((row) => row.reference).flatMap((row) => {
    const [atX, atY] = [pointOf(row, x), pointOf(row, y)];
    if ((atX === undefined) === (atY === undefined)) return [];
    return [atY !== undefined ? { type: "line", xref: "paper", x0: 0, x1: 1, y0: atY, y1: atY, line } : { type: "line", yref: "paper", y0: 0, y1: 1, x0: atX, x1: atX, line }];
  });
}

/** Published rows that have both values; none while they are switched off. */
function publishedPoints({ group, x, y, published }) {
  const keys = [x, y].map((index) => group.columns[index].key);
  return published && papersOf(group) ? papersOf(group).rows.filter((row) => keys.every((key) => row.values[key] !== undefined)) : [];
}

function publishedTraces(state, colours) {
  const rows = publishedPoints(state), [keyX, keyY] = [state.x, state.y].map((index) => state.group.columns[index].key);
  return rows.length ? [{
    type: "scatter", mode: "markers", x: rows.map((row) => row.values[keyX]), y: rows.map((row) => row.values[keyY]),
    customdata: rows.map((row) => -1 - papersOf(state.group).rows.indexOf(row)), hoverinfo: "none", showlegend: false,
    marker: { symbol: "square-open", size: 9, color: colours.soft, line: { width: 1.3 } },
  }] : [];
}

/** Names beside the marks as far as they fit: all of few rows, else those on the front. front: points of the dashed line. */
function labels(rows, front, { x, y, group }, layout, width, radius, colours) {
  const w = width - layout.margin.l - layout.margin.r, h = heightFor(width) - layout.margin.t - layout.margin.b;
  const scaled = (value, { type }) => (type === "log" ? Math.log10(value) : value);
  const along = (value, axis) => (scaled(value, axis) - axis.range[0]) / (axis.range[1] - axis.range[0]);
  const pixel = (atX, atY) => ({ px: along(atX, layout.xaxis) * w, py: h - along(atY, layout.yaxis) * h });
  const mark = (row) => ({ ...pixel(valueOf(row, x), valueOf(row, y)), r: radius, row, text: shortened(row.name) });
  const named = (rows.length <= MOST_NAMED ? rows : rows.filter((row) => row.front)).slice(0, MOST_NAMED);
  const others = rows.filter((row) => !named.includes(row)).slice(0, MOST_OBSTACLES).map(mark);
  const lines = [
    ...stepBoxes(front.map((point) => pixel(point.x, point.y)), frontShape(group.columns[x])),
    ...(rows.length > MOST_BARS ? [] : rows.flatMap((row) => barBoxes(row, x, y, pixel))),
  ];
  return placeLabels(named.map(mark), others, lines, w, h).map(({ point: { row, text }, dx, dy }) => ({
    x: scaled(valueOf(row, x), layout.xaxis), y: scaled(valueOf(row, y), layout.yaxis), text: literal(text), showarrow: false, xshift: dx, yshift: -dy,
    font: { size: 12, color: row.front ? colours.ink : colours.soft }, captureevents: false,
  }));
}

/** Where the intervals of a row are drawn. */
function barBoxes(row, x, y, pixel) {
  const [atX, atY] = [valueOf(row, x), valueOf(row, y)], corner = (...at) => { const { px, py } = pixel(...at); return [px, py]; };
  const across = row.cells[x].interval ?? [atX, atX], up = row.cells[y].interval ?? [atY, atY];
  return [boxOf(corner(across[0], atY), corner(across[1], atY)), boxOf(corner(atX, up[0]), corner(atX, up[1]))];
}

const shortened = (name) => (name.length > 36 ? `${name.slice(0, 35)}…` : name);
const heightFor = (width) => Math.round(Math.min(560, Math.max(400, 0.62 * width)));

function flatLegend(state, rows) {
  const missing = state.rows.filter((row) => !row.reference).length - rows.length, near = rows.find((row) => row.near);
  return [
    rows.length ? "Heavy outline: on the Pareto front of quality, coverage and speed. Dashed: the front of the two axes." : "No row has both values.",
    near ? `Ring: ${data.legend[near.mark]}.` : "",
    rows.length && rows.length <= MOST_BARS ? "Bars: 95 % intervals." : "",
    thinCurves(state.group).length ? "Thin lines join rows of one trained model under several sampling settings." : "",
    publishedPoints(state).length ? "Hollow squares: published numbers, on the hardware of the time; never ranked." : "",
    missing ? `${missing} of the rows lack a value and are only in the table.` : "",
    volumeText(state.group),
  ].filter(Boolean).join(" ");
}

function volumeText({ volumes }) {
  if (!volumes) return "";
  const models = volumes.models.slice(0, 5).map(([name, share]) => `${name} alone ${share}`).join("; ");
  return `Hypervolume ${volumes.total}${volumes.models.length > 1 ? ` (${models})` : ""}.`;
}

function curvesView(state, width) {
  const { group, x, y } = state, colours = theme(), shown = new Set(state.rows), narrow = width < 560;
  const found = group.curves.map((curve) => ({ model: curve.model, rows: withValues(curve.rows.map((place) => group.rows[place]).filter((row) => shown.has(row)), [x, y]) })).filter(({ rows }) => rows.length);
  const lines = found.slice(0, MOST_CURVES), inCurve = new Set(found.flatMap((curve) => curve.rows));
  const rest = withValues(state.rows.filter((row) => !row.reference && !inCurve.has(row)), [x, y]);
  const rows = [...lines.flatMap((curve) => curve.rows), ...rest], bars = rows.length <= MOST_BARS;
  const trace = (some, more) => ({ type: "scatter", x: some.map((row) => valueOf(row, x)), y: some.map((row) => valueOf(row, y)), customdata: some.map((row) => row.number), hoverinfo: "none", ...more });
  const traces = [
    trace(rest, { mode: "markers", showlegend: false, marker: { size: 9, color: colours.page, line: { color: colours.soft, width: 1.2 } } }),
    ...lines.map((curve, i) => trace(curve.rows, {
      mode: "lines+markers", name: literal(shortened(curve.model)), ...(bars ? { error_y: { ...errorBars(curve.rows, x, y, colours).error_y, color: COLOURS[i % COLOURS.length] } } : {}),
      line: { color: COLOURS[i % COLOURS.length], dash: DASHES[i % DASHES.length] }, marker: { size: 9, symbol: SYMBOLS[i % SYMBOLS.length] },
    })),
    highlightTrace(colours),
  ];
  const layout = { ...flatLayout(state, rows, { x: [], y: [] }, narrow, colours), showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 } };
  Object.assign(layout.margin, { t: 40, r: 16 });
  if (rest.length <= MOST_NAMED) layout.annotations = labels(rest, [], state, layout, width, 6, colours);
  const more = found.length > lines.length ? ` Shown are ${lines.length} of ${found.length} curves; the filter above chooses others.` : "";
  return { traces, layout, points: reachable(rows, x, y), legend: `A line joins rows of one trained model under several settings of its sampling, fewest evaluations first; hollow marks are the other rows.${bars ? " Bars: 95 % intervals." : ""}${more}` };
}

function spaceView(state, width) {
  const { group, x, y, colour } = state, columns = group.columns, colours = theme();
  const rows = withValues(state.rows.filter((row) => !row.reference), [x, y, colour]);
  const axisOf = (index) => {
    const found = rows.length ? axis(columns[index], rows.map((row) => valueOf(row, index)), [], colours) : {};
    return { ...found, showbackground: false, color: colours.soft, gridcolor: colours.line, title: { text: literal(columns[index].title), font: { size: 12, color: colours.ink } } };
  };
  const named = rows.length <= MOST_NAMED; // in space nothing keeps names apart
  const values = (index) => rows.map((row) => valueOf(row, index));
  const traces = [{
    type: "scatter3d", mode: "markers+text", x: values(x), y: values(y), z: values(colour), customdata: rows.map((row) => row.number), hoverinfo: "none",
    text: rows.map((row) => (named ? literal(row.name) : "")), textposition: "top center", textfont: { size: 11, color: colours.ink },
    marker: { size: rows.length > 200 ? 4 : 7, color: values(colour), colorscale: "Cividis", ...colourScale(columns[colour], values(colour)), symbol: rows.map((row) => (row.front ? "diamond" : "circle")), line: { color: colours.soft, width: 1 } },
  }];
  const layout = { margin: { l: 0, r: 0, t: 0, b: 0 }, dragmode: "orbit", scene: { xaxis: axisOf(x), yaxis: axisOf(y), zaxis: axisOf(colour), camera: { eye: { x: 1.65, y: 1.65, z: 0.9 }, center: { x: 0, y: 0, z: -0.15 } } }, uirevision: state.group.title };
  return { traces, layout, points: reachable(rows, x, y), legend: `Drag to turn. Diamonds: on the Pareto front. ${volumeText(group)}` };
}

function radarView(state, width) {
  const colours = theme(), rated = state.rows.filter((row) => row.goodness && !row.reference);
  const rows = [...rated].sort((a, b) => b.front - a.front).slice(0, MOST_RADAR);
  const narrow = width < 560, title = (name) => literal(state.group.columns[state.group.goals[name]]?.title ?? "none");
  const names = ["quality", "coverage", "speed"].map((name) => (narrow ? name : `${name}: ${title(name)}`));
  const traces = rows.map((row, i) => ({
    type: "scatterpolar", r: [...row.goodness, row.goodness[0]], theta: [...names, names[0]], customdata: [0, 1, 2, 0].map(() => row.number), hoverinfo: "none", name: literal(row.name),
    line: { color: COLOURS[i], dash: DASHES[i % DASHES.length], width: 2 }, marker: { size: 8, symbol: SYMBOLS[i] }, mode: "lines+markers", cliponaxis: false,
  }));
  const layout = {
    polar: { bgcolor: colours.page, radialaxis: { range: [0, 1], tickvals: [0.25, 0.5, 0.75], showticklabels: false, gridcolor: colours.line, linecolor: colours.line }, angularaxis: { rotation: 90, gridcolor: colours.line, linecolor: colours.line } },
    margin: { l: narrow ? 70 : 120, r: narrow ? 70 : 120, t: 40, b: 30 }, showlegend: true, height: narrow ? 360 + 22 * rows.length : 480,
    legend: narrow ? { orientation: "h", y: -0.12, yanchor: "top", x: 0.5, xanchor: "center" } : { x: 1.25, y: 0.5 },
  };
  const more = rated.length > rows.length ? ` Shown are ${rows.length} of ${rated.length} rows, the front first; the filter above chooses others.` : "";
  return { traces, layout, points: rows.map((row) => ({ row })), legend: `Corner: the best of this table. Centre: a tenth of the range beyond the worst in times and distances (or beyond ten times the best), nothing in shares.${more} ${volumeText(state.group)}` };
}

const CHOSEN = { flat: ["x", "y", "colour"], curves: ["x", "y"], space: ["x", "y", "colour"], radar: [] }; // columns that a view draws
const VIEWS = { flat: flatView, curves: curvesView, space: spaceView, radar: radarView };
const reachable = (rows, x, y) => rows.map((row) => ({ row, x: valueOf(row, x), y: valueOf(row, y) })).sort((a, b) => a.x - b.x);

// Pointing at marks, by mouse and by keyboard.
let pointing = null;

/** Mouse events go to `pointing`, which each drawing replaces; they are bound once. */
function listenToPlot(target, points, open, flat) {
  const bound = pointing !== null;
  pointing = { points, open, flat, at: -1 };
  if (bound) return;
  let mouse; // events from space say not where the mouse is
  target.addEventListener("mousemove", (event) => { mouse = event; }, true);
  target.on("plotly_hover", ({ points: [hit] }) => showTip(hit.customdata, mouse));
  target.on("plotly_unhover", hideTip);
  target.on("plotly_click", ({ points: [hit] }) => { if (hit.customdata > 0) { hideTip(); pointing.open(hit.customdata); } });
  target.addEventListener("keydown", movePoint);
  target.addEventListener("blur", hideTip);
}

function movePoint(event) {
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key], count = pointing.points.length;
  if (event.key === "Escape") return hideTip();
  if (!count || (step === undefined && event.key !== "Enter")) return undefined;
  event.preventDefault();
  const point = pointing.points[pointing.at];
  if (event.key === "Enter") return point && pointing.open(point.row.number);
  pointing.at = pointing.at < 0 ? (step > 0 ? 0 : count - 1) : (pointing.at + step + count) % count;
  return pointAt(pointing.points[pointing.at]);
}

function pointAt({ row, x, y }) {
  const target = byId("plot"), { left, top } = target.getBoundingClientRect();
  const at = target._fullLayout, spot = { clientX: left + 24, clientY: top + 24 };
  if (pointing.flat) {
    Plotly.restyle(target, { x: [[x]], y: [[y]] }, [target.data.length - 1]);
    spot.clientX = left + at.margin.l + at.xaxis.d2p(x);
    spot.clientY = top + at.margin.t + at.yaxis.d2p(y);
  }
  showTip(row.number, spot);
  byId("announced").textContent = byId("tip").textContent;
}

/** number: of a row, or for what is published −1 minus its place. */
function showTip(number, event) {
  const tip = byId("tip"), lines = number > 0 ? rowLines(number) : publishedLines(-1 - number);
  tip.replaceChildren(el("b", {}, lines.name), ...lines.facts.map(([name, value]) => el("div", {}, el("span", {}, name), el("span", {}, value))), el("small", {}, lines.below));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect(), { clientX = 40, clientY = 40 } = event ?? {};
  tip.style.left = `${Math.max(4, Math.min(clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(4, clientY + height + 24 > innerHeight ? clientY - height - 14 : clientY + 14)}px`;
}

function hideTip() { byId("tip").hidden = true; }

function rowLines(number) {
  const { group } = current, row = group.rows[number - 1];
  const told = [...new Set([group.goals.quality, group.goals.coverage, group.goals.speed, current.x, current.y, current.colour, group.columns.findIndex(({ key }) => key === "nfe")])];
  const facts = told.filter((index) => index !== null && index >= 0).map((index) => [group.columns[index].title, `${row.cells[index].text} ${row.cells[index].detail ?? ""}`]);
  return { name: row.name, facts, below: row.reference ? "real data: shown, never ranked" : [row.mark && `${row.mark} ${data.legend[row.mark]}`, "click for details"].filter(Boolean).join(" · ") };
}

function publishedLines(place) {
  const { columns, rows } = papersOf(current.group), row = rows[place];
  const facts = columns.map((column, i) => [column.title, row.texts[i]]).filter(([, text]) => text !== "—");
  return { name: row.name, facts, below: `published, not measured here: ${row.from.filter(Boolean).join(" · ")}` };
}

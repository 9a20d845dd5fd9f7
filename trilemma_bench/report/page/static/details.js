// The dialog of one run: all that its record and its folder hold.
const charts = [];

/** Opens the dialog on a row of a table: its scores, and each of its runs. */
function openRow(group, row) {
  const runs = row.runs.map((place) => data.runs[place]);
  const part = el("div");
  const choose = runs.length > 1 && el("label", { class: "bar" }, "Run of ",
    el("select", { onchange: (event) => showRun(part, runs[event.target.selectedIndex]) }, ...runs.map((run) => el("option", {}, `seed ${run.run.seed}`))));
  openDialog(row.name, [scoreList(group, row), choose, part]);
  showRun(part, runs[0]);
}

/** Opens the dialog on a run that is in no table. */
function openRun(place) {
  const part = el("div");
  openDialog(data.runs[place].name, [part]);
  showRun(part, data.runs[place]);
}

function openDialog(title, children) {
  byId("details-title").textContent = title;
  byId("details-body").replaceChildren(...children.filter(Boolean));
  byId("details").showModal();
  byId("details").scrollTop = 0;
}

function closeDialog() {
  charts.splice(0).forEach((chart) => Plotly.purge(chart));
  byId("details-body").replaceChildren();
}

function part(title, ...children) {
  const shown = children.filter(Boolean);
  return shown.length ? el("section", {}, el("h3", {}, title), ...shown) : null;
}

function scoreList(group, row) {
  const facts = group.columns.map((column, index) => [column.title + arrow(column), scoreText(row.cells[index])]);
  return part("Scores", fillFacts(el("dl", { class: "facts" }), facts));
}

function scoreText(cell) {
  if (cell.reason) return `${cell.text} ${cell.reason}`;
  const mark = { best: " – best of its table", tied: " – no difference to the best is shown" }[cell.mark] ?? "";
  return `${cell.text} ${cell.detail ?? ""}${mark}`;
}

function showRun(target, run) {
  charts.splice(0).forEach((chart) => Plotly.purge(chart));
  target.replaceChildren(...[
    run.run.error && part(run.run.status, el("pre", {}, run.run.error)),
    run.command && part("The command that repeats it", commandBox(run.command)),
    pictures(run),
    run.curve && part("Training", chart("training", curveTraces(run.curve), curveLayout(run.curve))),
    run.modes && part("Samples in each mode", chart("modes", [bars(run.modes)], { xaxis: { title: { text: "mode" } }, yaxis: { title: { text: "samples" }, rangemode: "tozero" } }, "small")),
    rawTimes(run),
    part("All of the record", ...sections(run)),
  ].filter(Boolean));
  charts.forEach((node) => node.draw());
}

function commandBox(command) {
  const box = el("pre", { tabindex: "0" }, command);
  const said = el("output", {});
  const copy = async () => {
    try { await navigator.clipboard.writeText(command); said.textContent = "copied"; } catch { getSelection().selectAllChildren(box); said.textContent = "selected: copy it with the keyboard"; }
  };
  return el("div", {}, box, el("p", { class: "bar" }, el("button", { type: "button", onclick: copy }, "Copy"), said));
}

function picture(found, title) {
  if (!found) return null;
  return found.uri ? el("figure", {}, el("img", { src: found.uri, alt: title }), el("figcaption", {}, title)) : el("p", { class: "soft" }, `${title}: ${found.left_out}`);
}

function pictures(run) {
  const shown = [picture(run.pictures.samples, "Samples"), picture(run.pictures.nearest, "Samples and the nearest training images")].filter(Boolean);
  return shown.length ? part("Pictures", el("div", { class: "pictures" }, ...shown)) : null;
}

/** A small plotly chart, drawn by its `draw` once it is on the page. */
function chart(name, traces, layout, kind = "") {
  const node = el("div", { class: `chart ${kind}`, id: `chart-${name}` });
  node.draw = () => {
    const colours = theme(), axisLook = { gridcolor: colours.line, zeroline: false, linecolor: colours.soft };
    Plotly.newPlot(node, traces, {
      margin: { l: 60, r: 12, t: 24, b: 44 }, paper_bgcolor: colours.page, plot_bgcolor: colours.page, font: { color: colours.ink, family: "system-ui, sans-serif", size: 12 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, ...layout, xaxis: { ...axisLook, ...layout.xaxis }, yaxis: { ...axisLook, ...layout.yaxis },
    }, { ...CONFIG, displayModeBar: false });
  };
  charts.push(node);
  return node;
}

function curveTraces({ step, series }) {
  return Object.entries(series).map(([name, values], i) => ({ type: "scatter", mode: "lines", x: step, y: values, name: literal(name), hoverinfo: "x+y", line: { color: COLOURS[i % COLOURS.length], dash: DASHES[i % DASHES.length], width: 1.8 } }));
}

const curveLayout = ({ series }) => ({ xaxis: { title: { text: "step" } }, yaxis: Object.keys(series).length === 1 ? { title: { text: literal(Object.keys(series)[0]) } } : {}, showlegend: Object.keys(series).length > 1 });
const bars = (values) => ({ type: "bar", y: values, hoverinfo: "x+y", marker: { color: COLOURS[0] } });

/** The raw times of each repetition, a dot each, and as numbers to copy. */
function rawTimes(run) {
  const kinds = [["batches", run.raw_seconds], ["a batch of one", run.raw_latency_seconds]].filter(([, values]) => values.length);
  if (!kinds.length) return null;
  const drawn = kinds.map(([name, values], i) => chart(`times-${i}`, [{ type: "scatter", mode: "markers", y: values.map((value) => value * 1000), hoverinfo: "y", marker: { color: COLOURS[i], size: 8 } }],
    { xaxis: { title: { text: `repetition (${name})` } }, yaxis: { title: { text: "ms" }, rangemode: "tozero" } }, "small"));
  const numbers = kinds.map(([name, values]) => [`${name}, seconds`, values.join(", ")]);
  return part("Raw times", el("div", { class: "pictures" }, ...drawn), el("details", {}, el("summary", {}, "as numbers"), fillFacts(el("dl", { class: "facts" }), numbers)));
}

function sections(run) {
  const parts = [
    ["Run", run.run], ["Settings of the model", run.settings], ["Training", run.training], ["Sampling and timing", run.speed],
    ["Protocol", data.shared[run.protocol]], ["Training data", run.dataset], ["Environment", data.shared[run.environment]],
  ];
  return parts.filter(([, facts]) => facts && Object.keys(facts).length).map(([title, facts]) => el("details", {}, el("summary", {}, title), fillFacts(el("dl", { class: "facts" }), flattened(facts))));
}

/** Nested facts as [name, text]. */
function flattened(facts, before = "") {
  return Object.entries(facts).flatMap(([name, value]) => {
    const title = `${before}${name.replaceAll("_", " ")}`;
    if (value && typeof value === "object" && !Array.isArray(value)) return flattened(value, `${title} · `);
    return [[title, value === null ? "—" : typeof value === "object" ? JSON.stringify(value) : String(value)]];
  });
}

// What the reader has chosen, and what follows from it.
const PICTURES_AT_ONCE = 12;
const current = { group: null, rows: [], view: "flat", x: 0, y: 0, colour: 0, query: "", limit: { index: 0, text: "", value: null }, onlyFront: false, allColumns: false, sort: null, published: true };

function selectGroup(place) {
  const group = data.groups[place];
  Object.assign(current, { group, sort: null });
  byId("group").hidden = false;
  byId("group-title").replaceChildren(group.title, " ", el("small", {}, [group.device, group.training && `trained ${group.training}`].filter(Boolean).join(" · ")));
  byId("winners").replaceChildren(...winners(group));
  document.querySelectorAll("#groups tr[data-group]").forEach((row) => row.classList.toggle("chosen", row.dataset.group === String(place)));
  chooseAxes(group);
  byId("published-switch").hidden = !papersOf(group);
  fillPublished(group);
  fillList("notes", group.notes);
  fillFacts(byId("facts"), group.facts);
  fillFacts(byId("meanings"), group.columns.filter((column) => column.meaning).map((column) => [column.title, column.meaning + (column.better ? `; ${column.better} is better` : "")]));
  refresh();
}

/** The trilemma's own axes to begin with; any column can take their place. */
function chooseAxes(group) {
  const drawable = group.columns.map((column, index) => index).filter((index) => group.rows.some((row) => !row.reference && valueOf(row, index) !== undefined));
  const { quality, coverage, speed } = group.goals, first = (...wanted) => wanted.find((index) => drawable.includes(index)) ?? drawable[0] ?? 0;
  current.x = first(speed, coverage);
  current.y = first(quality, coverage);
  current.colour = first(coverage, quality);
  for (const [id, key] of [["axis-x", "x"], ["axis-y", "y"], ["axis-colour", "colour"]]) {
    byId(id).replaceChildren(...drawable.map((index) => el("option", { value: String(index), selected: index === current[key] }, group.columns[index].title)));
  }
  chooseLimit(group, drawable);
  allow("curves", group.curves.length > 0, "no model here was sampled with several settings");
  allow("radar", group.rows.some((row) => row.goodness && !row.reference), "no row has quality, coverage and speed");
  allow("space", drawable.length > 2 && hasWebGL(), "needs three columns and WebGL");
}

/** A limit on one column, such as a latency. */
function chooseLimit(group, drawable) {
  const text = ({ title, better }) => `${title} ${better === "higher" ? "≥" : "≤"}`;
  const latency = drawable.find((index) => group.columns[index].key === "latency_seconds") ?? drawable[0] ?? 0;
  current.limit = { index: latency, text: "", value: null };
  byId("limit").value = "";
  byId("limit-column").replaceChildren(...drawable.map((index) => el("option", { value: String(index), selected: index === latency }, text(group.columns[index]))));
  readLimit();
}

/** What was typed means as much as the column's units make of it. */
function readLimit() {
  const { limit, group } = current, units = unitsOf(group.columns[limit.index]), names = Object.keys(units), input = byId("limit");
  limit.value = amount(limit.text, units);
  input.placeholder = { s: "e.g. 20 ms", B: "e.g. 2 GiB" }[names.find((name) => units[name] === 1)] ?? "any";
  input.title = `a number${names.length ? `, in ${names.find((name) => units[name] === 1)} or with its unit: ${names.join(", ")}` : ""}`;
  input.setAttribute("aria-invalid", String(limit.value === null && limit.text !== ""));
}

/** Real data stay as the ceiling; a row without a value is not known to keep the limit. */
function keepsLimit(row) {
  const { index, value } = current.limit, has = valueOf(row, index);
  if (value === null || row.reference) return true;
  return has !== undefined && (current.group.columns[index].better === "higher" ? has >= value : has <= value);
}

/** The answer to a budget: which row within the limit has the best quality, and how many may be beyond the limit after all. */
function limitText() {
  const { group, rows, limit: { index, text, value } } = current, { quality } = group.goals;
  const within = rows.filter((row) => !row.reference), sign = (place) => (group.columns[place].better === "higher" ? -1 : 1);
  if (value === null && text) return `. "${text}" is no limit: give ${byId("limit").title}`;
  if (value === null || !within.length) return "";
  const measured = quality === null ? [] : within.filter((row) => valueOf(row, quality) !== undefined);
  const [best] = measured.sort((a, b) => sign(quality) * (valueOf(a, quality) - valueOf(b, quality)));
  const unsure = within.filter(({ cells }) => cells[index].interval?.some((end) => sign(index) * (end - value) > 0)).length;
  const busy = within.filter(({ cells }) => cells[index].busy).length;
  return `${best ? `. Within the limit ${group.columns[quality].title} is best of ${best.name}` : ""}${unsure ? `. 95 % intervals of ${unsure} of these reach beyond it` : ""}${busy ? `. Times of ${busy} of these are from a busy machine or a shared GPU` : ""}`;
}

function allow(view, possible, reason) {
  const input = document.querySelector(`input[name=view][value=${view}]`);
  input.disabled = !possible;
  input.parentElement.title = possible ? "" : reason;
  if (!possible && current.view === view) {
    current.view = "flat";
    document.querySelector("input[name=view][value=flat]").checked = true;
  }
}

function hasWebGL() {
  try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
}

function filteredRows() {
  const words = current.query.toLowerCase().split(/\s+/).filter(Boolean);
  return current.group.rows.filter((row) => (row.front || !current.onlyFront) && keepsLimit(row) && words.every((word) => row.name.toLowerCase().includes(word)));
}

function open(number) { openRow(current.group, current.group.rows[number - 1]); }

function refresh() {
  current.rows = filteredRows();
  const all = current.group.rows.length, fewer = current.rows.length < all;
  byId("shown").textContent = `${current.rows.length} of ${all} rows${fewer ? `; best, ≈, ◆ and ◇ are of all ${all}` : ""}${limitText()}`;
  drawTable();
  drawPlot(current, open);
  gallery("samples", "samples", "Samples");
  gallery("nearest", "nearest", "Samples and the nearest training images");
}

function drawTable() {
  fillTable(current, open, (index) => { current.sort = nextSort(current.sort, index, current.group.columns); drawTable(); focusHead(index); });
}

/** The heading that was pressed is a new element after sorting. */
function focusHead(index) {
  document.querySelector(`#table th[data-column="${CSS.escape(index < 0 ? "name" : current.group.columns[index].key)}"] button`)?.focus();
}

/** Pictures of the rows side by side, a dozen at a time. */
function gallery(id, kind, title) {
  const shown = current.rows.map((row) => ({ row, run: data.runs[row.runs[0]] })).filter(({ run }) => run.pictures[kind]?.uri);
  const left = current.rows.filter((row) => data.runs[row.runs[0]].pictures[kind]?.left_out).length;
  byId(`${id}-part`).hidden = !shown.length && !left;
  const add = (from) => {
    const figures = shown.slice(from, from + PICTURES_AT_ONCE).map(({ row, run }) => el("figure", {},
      el("img", { src: run.pictures[kind].uri, alt: `${title} of ${row.name}` }),
      el("figcaption", {}, el("button", { type: "button", class: "link", onclick: () => open(row.number) }, row.name), ` seed ${run.run.seed}`)));
    byId(id).append(...figures);
    const next = from + PICTURES_AT_ONCE;
    if (next < shown.length) byId(id).append(el("p", {}, el("button", { type: "button", onclick: (event) => { event.target.parentElement.remove(); add(next); } }, `${shown.length - next} more`)));
    else if (left) byId(id).append(el("p", { class: "soft" }, `${left} more are left out to keep this page small; they lie in the runs' folders.`));
  };
  byId(id).replaceChildren();
  add(0);
}

function listen() {
  const change = (id, apply) => byId(id).addEventListener("input", (event) => { apply(event.target); });
  const redraw = () => drawPlot(current, open);
  change("filter", (input) => { current.query = input.value; later(refresh); });
  change("only-front", (input) => { current.onlyFront = input.checked; refresh(); });
  change("limit", (input) => { current.limit.text = input.value.trim(); readLimit(); later(refresh); });
  change("limit-column", (input) => { current.limit.index = Number(input.value); readLimit(); refresh(); });
  change("all-columns", (input) => { current.allColumns = input.checked; drawTable(); });
  change("published", (input) => { current.published = input.checked; redraw(); });
  for (const [id, key] of [["axis-x", "x"], ["axis-y", "y"], ["axis-colour", "colour"]]) change(id, (input) => { current[key] = Number(input.value); redraw(); });
  byId("views").addEventListener("change", (event) => { current.view = event.target.value; redraw(); });
  byId("close").addEventListener("click", () => byId("details").close());
  byId("details").addEventListener("close", closeDialog);
  byId("details").addEventListener("click", (event) => { if (event.target === byId("details")) byId("details").close(); });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; later(redraw); } });
  addEventListener("hashchange", () => selectGroup(groupOfHash()));
}

let waiting = 0;
function later(action) { clearTimeout(waiting); waiting = setTimeout(action, 120); }

function groupOfHash() {
  const place = Number(/^#group-(\d+)$/.exec(location.hash)?.[1] ?? 1) - 1;
  return place in data.groups ? place : 0;
}

function start() {
  themeSwitch(() => { if (current.group) drawPlot(current, open); charts.forEach((node) => node.draw()); });
  byId("count").textContent = `${data.count} run${data.count === 1 ? "" : "s"}${data.groups.length ? `, ${data.groups.length} comparable group${data.groups.length === 1 ? "" : "s"}` : ": no complete run to show"}`;
  fillFacts(byId("legend"), Object.entries(data.legend));
  fillFailed(openRun);
  byId("skipped").hidden = !fillList("skipped-list", data.skipped);
  listen();
  if (!data.groups.length) return;
  byId("overview").hidden = data.groups.length < 2;
  fillOverview((place) => { if (groupOfHash() === place) { selectGroup(place); } else { location.hash = `group-${place + 1}`; } byId("group-title").focus(); });
  selectGroup(groupOfHash());
}

start();

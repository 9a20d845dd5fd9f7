// The sortable table of a group, and the tables that only list.
const headOf = (...cells) => el("thead", {}, el("tr", {}, ...cells));
const columnHead = (column) => el("th", { scope: "col", title: column.meaning || undefined }, `${column.title}${arrow(column)}`);

/** Fills the group's table with `state.rows`, sorted; `resort` is called with a column's place, −1 for the name. */
function fillTable(state, open, resort) {
  const { group } = state;
  const shown = group.columns.map((column, index) => index).filter((index) => state.allColumns || group.columns[index].main);
  const sorted = (index) => (state.sort?.index === index ? (state.sort.sign > 0 ? "ascending" : "descending") : undefined);
  const head = (index, text, title, kind) => el("th", { scope: "col", class: kind, "aria-sort": sorted(index), "data-column": index < 0 ? "name" : group.columns[index].key },
    el("button", { type: "button", title, onclick: () => resort(index) }, text));
  byId("table").replaceChildren(
    headOf(el("th", { scope: "col", class: "number" }, "#"), head(-1, "Model", undefined, "name"),
      ...shown.map((index) => head(index, `${group.columns[index].title}${arrow(group.columns[index])}`, group.columns[index].meaning || undefined))),
    el("tbody", {}, ...sortedRows(state).map((row) => rowOf(row, shown, open))),
  );
}

function rowOf(row, shown, open) {
  const name = el("th", { scope: "row", class: "name" }, el("div", {},
    el("button", { type: "button", class: "link", "aria-haspopup": "dialog" }, row.name),
    row.mark && el("span", { class: "mark", title: data.legend[row.mark] }, row.mark), row.reference && el("small", {}, "reference")));
  return el("tr", { class: row.reference ? "reference" : undefined, onclick: () => open(row.number) }, el("td", { class: "number" }, String(row.number)), name, ...shown.map((index) => cellOf(row.cells[index])));
}

function cellOf(cell) {
  return el("td", { class: cell.mark === "best" ? "best" : undefined, title: cell.reason }, cell.text,
    cell.mark === "tied" && el("span", { class: "mark", title: "no difference to the best is shown" }, " ≈"), cell.detail && el("small", {}, cell.detail),
    cell.reason && el("span", { class: "unseen" }, `: ${cell.reason}`));
}

/** The rows in the order that was asked for; those without a value always come last. */
function sortedRows({ rows, sort }) {
  if (!sort) return rows;
  if (sort.index < 0) return [...rows].sort((a, b) => sort.sign * a.name.localeCompare(b.name, undefined, { numeric: true }));
  const value = (row) => valueOf(row, sort.index);
  return [...rows].sort((a, b) => (value(a) === undefined) - (value(b) === undefined) || sort.sign * ((value(a) ?? 0) - (value(b) ?? 0)));
}

/** What a first press on a heading does: the best first. */
function nextSort(sort, index, columns) {
  if (sort?.index === index) return { index, sign: -sort.sign };
  return { index, sign: index >= 0 && columns[index].better === "higher" ? -1 : 1 };
}

const goalBest = (group, goal) => {
  const index = group.goals[goal];
  return index === null ? [] : group.rows.filter((row) => row.cells[index].mark === "best");
};

/** How many rows are not shown to differ from the best. */
const tiedOf = (group, index) => group.rows.filter((row) => row.cells[index].mark === "tied").length;

/** Who is best in each goal, and whether that is sure. */
function winners(group) {
  const cards = ["quality", "coverage", "speed"].map((goal) => {
    const index = group.goals[goal], best = goalBest(group, goal);
    if (!best.length) return null;
    const cell = best[0].cells[index], tied = tiedOf(group, index);
    const names = best.length > 2 ? `${best[0].name} and ${best.length - 1} others` : best.map((row) => row.name).join(" and ");
    return el("div", { class: "card" }, el("small", {}, `Best ${goal}`), el("b", {}, names), `${group.columns[index].title} ${cell.text} ${cell.detail ?? ""}`,
      tied > 0 && el("small", {}, ` · ≈ ${tied} more not shown to differ`));
  });
  return cards.filter(Boolean);
}

function fillOverview(select) {
  const short = (group, goal) => {
    const best = goalBest(group, goal), index = group.goals[goal];
    if (group.rows.filter((row) => !row.reference).length < 2) return "one row: nothing to compare";
    if (!best.length) return "—";
    const equal = best.length > 1 ? ` and ${best.length - 1} more` : "", tied = tiedOf(group, index);
    return `${best[0].name}${equal}: ${group.columns[index].title} ${best[0].cells[index].text}${tied ? ` (≈ ${tied} more)` : ""}`;
  };
  byId("groups").replaceChildren(
    headOf(el("th", { scope: "col", class: "name" }, "Data"), el("th", { scope: "col" }, "Rows"), ...["quality", "coverage", "speed"].map((goal) => el("th", { scope: "col", class: "text" }, `Best ${goal}`)), el("th", { scope: "col", class: "text" }, "Protocol, device")),
    el("tbody", {}, ...data.groups.map((group, place) => el("tr", { "data-group": place, onclick: () => select(place) },
      el("th", { scope: "row", class: "name" }, el("button", { type: "button", class: "link" }, group.title)), el("td", {}, String(group.rows.length)),
      ...["quality", "coverage", "speed"].map((goal) => el("td", { class: "text" }, short(group, goal))),
      el("td", { class: "text" }, `${group.facts[0]?.[1] ?? "no protocol"}, ${group.device}`)))),
  );
}

function fillPublished(group) {
  byId("published-part").hidden = !papersOf(group);
  if (!papersOf(group)) return;
  const { columns, rows } = papersOf(group);
  byId("published-meaning").textContent = `${data.published_meaning}.`;
  byId("published-table").replaceChildren(
    headOf(el("th", { scope: "col", class: "name" }, "Model"), ...columns.map(columnHead), ...["Hardware", "Source", "Note"].map((text) => el("th", { scope: "col", class: "text" }, text))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", { scope: "row", class: "name" }, row.name), ...row.texts.map((text) => el("td", {}, text)), ...row.from.map((text) => el("td", { class: "text" }, text))))),
  );
}

function fillFailed(openRun) {
  byId("failed").hidden = !data.failed.length;
  byId("failed-table").replaceChildren(
    headOf(...["Model", "Dataset", "Status", "Error"].map((text) => el("th", { scope: "col", class: text === "Model" ? "name" : "text" }, text))),
    el("tbody", {}, ...data.failed.map((place) => ({ place, run: data.runs[place] })).map(({ place, run }) => el("tr", { onclick: () => openRun(place) },
      el("th", { scope: "row", class: "name" }, el("button", { type: "button", class: "link", "aria-haspopup": "dialog" }, run.name)), el("td", { class: "text" }, run.dataset.name),
      el("td", { class: "text" }, run.run.status), el("td", { class: "text" }, run.run.error ?? "no error was recorded")))),
  );
}

// Sorts a table by the column whose heading was pressed: numbers best read largest or smallest first, dashes always last.
document.querySelectorAll("thead button").forEach((button) => button.addEventListener("click", () => {
  const heading = button.closest("th"), body = heading.closest("table").tBodies[0];
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  heading.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const key = (row) => row.cells[heading.cellIndex].dataset.value;
  const compare = (a, b) => heading.classList.contains("name") ? a.localeCompare(b) : a - b;
  const order = (a, b) => key(a) === undefined ? 1 : key(b) === undefined ? -1 : sign * compare(key(a), key(b));
  body.append(...[...body.rows].sort(order));
}));

// Elements, and the page's data. What a record says reaches the page as text nodes and attribute values only.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners ("onclick": function) and children; strings become text. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child || child === 0));
  return node;
}

const arrow = (column) => ({ higher: "\u00a0↑", lower: "\u00a0↓" })[column.better] ?? "";

/** A definition list of [name, value]. */
function fillFacts(list, facts) {
  list.replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  return list;
}

/** Shows or hides the part of the page that holds a list. */
function fillList(id, lines) {
  byId(id).replaceChildren(...lines.map((line) => el("li", {}, line)));
  return lines.length > 0;
}

/** Colours of the theme, for what is no HTML. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "soft", "line", "page", "raised", "link"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const THEMES = ["system", "light", "dark"];
const darkSystem = matchMedia("(prefers-color-scheme: dark)");

function storedTheme() {
  try { return THEMES.includes(localStorage.getItem("trilemma-theme")) ? localStorage.getItem("trilemma-theme") : "system"; } catch { return "system"; }
}

/** The button that goes through the themes; `redraw` is called after each change. */
function themeSwitch(redraw) {
  let chosen = storedTheme();
  const apply = () => {
    document.documentElement.dataset.theme = chosen === "system" ? (darkSystem.matches ? "dark" : "light") : chosen;
    byId("theme").textContent = `Theme: ${chosen}`;
  };
  byId("theme").addEventListener("click", () => {
    chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
    try { localStorage.setItem("trilemma-theme", chosen); } catch { /* a page from disk may not store */ }
    apply();
    redraw();
  });
  darkSystem.addEventListener("change", () => { apply(); redraw(); });
  apply();
}

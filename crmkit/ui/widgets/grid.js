// The grid: virtual scroll over a kernel-side query. Focus is on one row at a time; the arrows move it.

const ROW = 34; // pixels
const SPARE = 10; // rows drawn above and below what is seen

function render({ model, el: root }) {
  let columns = [];
  let rows = new Map(); // index -> row of cells, as far as they arrived
  let total = null;
  let gen = 0;
  let sort = null;
  let desc = false;
  let chosen = false; // somebody clicked a heading: their order also holds for what they filter
  let active = 0;
  let opens = false;
  let asked = "";
  const drawn = new Map(); // index -> element

  const wire = talk(model, root, { grid: build, rows: receive, stale: () => requestWindow(true) });
  const search = el("input", { class: "crm-input", type: "search", placeholder: "Filter", autocomplete: "off", spellcheck: "false" });
  const caption = el("div", { class: "crm-grid-count", role: "status" }, "Loading…");
  const head = el("div", { role: "row", class: "crm-grid-row crm-grid-head", "aria-rowindex": "1" });
  const space = el("div", { class: "crm-grid-space", role: "presentation" });
  const empty = el("div", { class: "crm-grid-empty", hidden: true });
  const view = el("div", { class: "crm-grid-view", role: "rowgroup", tabindex: "0" }, space);
  const grid = el("div", { class: "crm-grid", role: "grid" }, el("div", { role: "rowgroup", class: "crm-grid-top" }, head), view);
  root.append(el("div", { class: "crm-grid-bar" }, search, caption), el("div", { class: "crm-grid-frame" }, grid, empty));

  function build(message) {
    columns = message.columns;
    opens = message.opens;
    ({ sort, desc } = message);
    search.value = message.text;
    search.hidden = !message.searchable;
    search.setAttribute("aria-label", `Filter ${message.label.toLowerCase()}`);
    grid.setAttribute("aria-label", message.label);
    grid.setAttribute("aria-colcount", columns.length);
    view.setAttribute("aria-label", `${message.label}, rows`);
    grid.style.setProperty("--crm-columns", columns.map((c) => `minmax(${c.least}px, ${c.weight}fr)`).join(" "));
    grid.style.setProperty("--crm-width", `${columns.reduce((sum, c) => sum + c.least, 24)}px`);
    view.style.height = `${message.height * ROW}px`;
    drawHead();
    requery();
  }

  function drawHead() {
    head.replaceChildren(...columns.map((column) => {
      const sorted = column.name === sort ? (desc ? "descending" : "ascending") : "none";
      const arrow = el("span", { class: "crm-grid-arrow", "aria-hidden": "true" }, { ascending: "↑", descending: "↓", none: "" }[sorted]);
      const inner = column.sortable
        ? el("button", { class: "crm-grid-sort", type: "button", onclick: () => toggle(column) }, column.label, arrow)
        : el("span", { class: "crm-grid-sort" }, column.label);
      return el("div", { role: "columnheader", class: `crm-grid-cell crm-${column.align}`, "aria-sort": sorted, "data-name": column.name }, inner);
    }));
  }

  function toggle(column) {
    desc = column.name === sort ? !desc : false;
    sort = column.name;
    chosen = true;
    drawHead();
    [...head.children].find((cell) => cell.dataset.name === sort)?.querySelector("button")?.focus();
    requery();
  }

  function requery() {
    gen += 1;
    rows = new Map();
    active = 0;
    view.scrollTop = 0;
    asked = "";
    wire.ask("query", { text: search.value, sort: chosen ? sort : null, desc, gen, ...wanted() });
  }

  const seen = () => Math.ceil((view.clientHeight || 400) / ROW);
  function wanted() {
    const start = Math.max(0, Math.floor(view.scrollTop / ROW) - SPARE);
    return { start, count: seen() + 2 * SPARE };
  }

  function requestWindow(fresh = false) {
    const { start, count } = wanted();
    const end = Math.min(start + count, total ?? count);
    let missing = fresh;
    for (let i = start; i < end && !missing; i += 1) missing = !rows.has(i);
    const key = `${gen}:${start}`;
    if (!missing || (!fresh && asked === key)) return;
    asked = key;
    wire.ask("window", { gen, start, count });
  }
  const requestSoon = calm(requestWindow, 30);

  function receive(message) {
    if (message.gen !== gen) return; // the answer to an older question
    if (rows.size > 4000 || message.total !== total) rows = new Map();
    total = message.total;
    message.rows.forEach((row, i) => rows.set(message.start + i, row));
    caption.textContent = message.caption;
    empty.textContent = message.empty;
    empty.hidden = total > 0;
    grid.setAttribute("aria-rowcount", total + 1);
    space.style.height = `${total * ROW}px`;
    active = Math.min(active, Math.max(0, total - 1));
    draw();
    requestSoon();
  }

  function draw() {
    const { start, count } = wanted();
    const end = Math.min(start + count, total ?? 0);
    for (const [index, node] of drawn) {
      if (index < start || index >= end) {
        if (node === document.activeElement) view.focus({ preventScroll: true });
        node.remove();
        drawn.delete(index);
      }
    }
    for (let index = start; index < end; index += 1) {
      if (!drawn.has(index)) drawn.set(index, newRow(index));
      fill(drawn.get(index), index);
    }
  }

  function newRow(index) {
    const node = el("div", {
      role: "row", class: "crm-grid-row", tabindex: "-1", "aria-rowindex": index + 2,
      onclick: () => { move(index); open(index); },
    });
    node.style.top = `${index * ROW}px`;
    space.append(node);
    return node;
  }

  function fill(node, index) {
    const row = rows.get(index);
    node.classList.toggle("crm-active", index === active);
    node.setAttribute("aria-selected", String(index === active));
    node.classList.toggle("crm-waiting", !row);
    if (node.crmRow === row && row) return;
    node.crmRow = row;
    node.dataset.id = row ? row.id : "";
    node.replaceChildren(...columns.map((column, i) => el(
      "div", { role: "gridcell", class: `crm-grid-cell crm-${column.align}`, "aria-colindex": i + 1, title: row ? row.cells[i] : null },
      row ? row.cells[i] : "…",
    )));
  }

  function move(index, focus = true) {
    if (!total) return;
    active = Math.max(0, Math.min(total - 1, index));
    const top = active * ROW;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW > view.scrollTop + view.clientHeight) view.scrollTop = top + ROW - view.clientHeight;
    draw();
    if (focus) drawn.get(active)?.focus({ preventScroll: true });
    requestSoon();
  }

  function open(index) {
    const row = rows.get(index);
    if (row && opens) wire.ask("open", { id: row.id });
  }

  view.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: seen() - 1, PageUp: 1 - seen(), Home: -Infinity, End: Infinity }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      move(Number.isFinite(step) ? active + (event.target === view ? 0 : step) : (step > 0 ? total - 1 : 0));
    } else if (event.key === "Enter") {
      event.preventDefault();
      open(active);
    }
  });
  view.addEventListener("scroll", () => { draw(); requestSoon(); });
  const searchSoon = calm(requery, 120);
  search.addEventListener("input", () => searchSoon());
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); move(0); }
    if (event.key === "Enter") searchSoon.now();
  });
  const resized = new ResizeObserver(() => {
    head.style.paddingRight = `${12 + view.offsetWidth - view.clientWidth}px`; // the scroll bar of the rows below
    draw();
    requestSoon();
  });
  resized.observe(view);
  wire.ask("hello");
  return () => { resized.disconnect(); wire.close(); };
}

export default { render };

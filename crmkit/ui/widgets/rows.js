// A small table of texts.

const SHORT = 16; // characters, the length of a time: what is no longer stays on one line

function render({ model, el: root }) {
  const wire = talk(model, root, { rows: draw });
  const box = el("div", { class: "crm-rows-box" });
  root.append(box);

  function draw({ title, text, empty, columns, rows }) {
    const id = uid("rows");
    const cell = (value, index) => el(
      "td", { class: value.length > SHORT ? "crm-long" : null },
      columns[index]?.command && value ? el("code", {}, value) : value,
    );
    const table = el(
      "table", { class: "crm-rows-table", "aria-labelledby": id },
      el("thead", {}, el("tr", {}, ...columns.map((column) => el("th", { scope: "col" }, column.label)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell)))),
    );
    box.replaceChildren(
      el("div", { class: "crm-rows-title", id, role: "heading", "aria-level": "3" }, title),
      text ? el("p", { class: "crm-head-text crm-quiet" }, text) : "",
      rows.length
        ? el("div", { class: "crm-rows-frame", role: "region", tabindex: "0", "aria-labelledby": id }, table)
        : el("p", { class: "crm-quiet crm-rows-empty" }, empty),
    );
  }

  wire.ask("hello");
  return () => wire.close();
}

export default { render };

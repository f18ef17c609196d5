// The top of the app: search box, navigation with open cards, status line.

function render({ model, el: root }) {
  const wire = talk(model, root, { bar: build, found, nav, status, health, notice });
  const title = el("div", { class: "crm-brand" });
  const combo = combobox({
    label: "Search customers", placeholder: "Search by name, number, mail…", type: "search",
    search: (text) => wire.ask("search", { text }),
    pick: (item) => { combo.input.value = ""; wire.ask("open", { id: item.id }); },
  });
  combo.input.classList.add("crm-search");
  const create = el("button", { type: "button", class: "crm-button crm-primary crm-new", onclick: () => wire.ask("new") });
  const tabs = el("nav", { class: "crm-tabs-bar", "aria-label": "Pages and open cards" });
  const line = el("div", { class: "crm-status", role: "status" });
  const trouble = el("details", { class: "crm-health", hidden: true });
  const hint = el("div", { class: "crm-notice crm-quiet", hidden: true });
  root.append(
    el("div", { class: "crm-bar" }, title, el("div", { class: "crm-bar-search" }, combo.box), create),
    el("div", { class: "crm-bar-low" }, tabs, line),
    trouble, hint,
  );

  function build(message) {
    title.textContent = message.title;
    create.textContent = `New ${message.noun}`;
  }

  function found({ text, items }) {
    if (combo.input.value === text) combo.show(items, "Nobody found");
  }

  function nav({ items, current }) {
    drawTabs(tabs, items, current, (id) => wire.ask("go", { id }), (id) => wire.ask("leave", { id }));
  }

  function status({ text, bad }) {
    line.textContent = text;
    line.classList.toggle("crm-bad", bad);
  }

  function health({ lines }) {
    trouble.hidden = !lines.length;
    const summary = lines.length === 1 ? "A plugin has a problem" : `${lines.length} problems with plugins`;
    trouble.replaceChildren(el("summary", {}, summary), el("ul", {}, ...lines.map((text) => el("li", {}, text))));
  }

  function notice({ text, key, title: page }) {
    hint.hidden = !text;
    hint.replaceChildren(
      key ? `${text}: see ` : `${text}.`,
      key ? el("button", { type: "button", class: "crm-link", onclick: () => wire.ask("go", { id: key }) }, page) : "",
    );
  }

  wire.ask("hello");
  return () => wire.close();
}

export default { render };

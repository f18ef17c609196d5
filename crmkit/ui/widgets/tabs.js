// The navigation inside a card.

function render({ model, el: root }) {
  const nav = el("nav", { class: "crm-tabs-bar crm-tabs-card" });
  const wire = talk(model, root, {
    tabs({ label, items, current }) {
      nav.setAttribute("aria-label", label);
      drawTabs(nav, items, current, (id) => wire.ask("go", { id }));
    },
  });
  root.append(nav);
  wire.ask("hello");
  return () => wire.close();
}

export default { render };

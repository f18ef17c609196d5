// A heading: initials, title, subtitle, chips, facts, a sentence.

function render({ model, el: root }) {
  const wire = talk(model, root, { head: draw });
  const box = el("div", { class: "crm-head" });
  root.append(box);

  function draw(message) {
    const chips = (message.chips || []).map((chip) => el("span", { class: "crm-chip" }, chip));
    const facts = (message.facts || []).flatMap(([name, value]) => [
      el("div", { class: "crm-fact" }, el("dt", {}, name), el("dd", {}, value)),
    ]);
    box.replaceChildren(
      message.initials ? el("div", { class: "crm-initials", "aria-hidden": "true" }, message.initials) : "",
      el(
        "div", { class: "crm-head-body" },
        el("div", { class: "crm-head-line" },
          el("div", { class: "crm-title", role: "heading", "aria-level": "3" }, message.title || ""),
          el("span", { class: "crm-quiet" }, message.subtitle || ""), ...chips),
        ...[message.text, ...(message.lines || [])].filter(Boolean).map((line) => el("p", { class: "crm-head-text" }, line)),
        facts.length ? el("dl", { class: "crm-facts" }, ...facts) : null,
      ),
    );
  }

  wire.ask("hello");
  return () => wire.close();
}

export default { render };

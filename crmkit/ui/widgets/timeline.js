// The timeline: entries under the days they happened on, in the time zone of the workspace.

function render({ model, el: root }) {
  let next = null;
  let waiting = false;
  let day = "";
  const wire = talk(model, root, { page: receive });
  const list = el("ol", { class: "crm-timeline-list" });
  const more = el("button", { type: "button", class: "crm-button", hidden: true, onclick: askMore }, "Show more");
  const empty = el("div", { class: "crm-quiet crm-timeline-empty" }, "Loading…");
  const box = el("div", { class: "crm-timeline", role: "region", "aria-label": "Timeline", tabindex: "0" }, list, empty, more);
  root.append(box);

  function receive(message) {
    waiting = false;
    if (message.first) {
      day = "";
      list.replaceChildren();
    }
    list.append(...message.entries.flatMap(draw));
    next = message.next;
    more.hidden = !next;
    empty.hidden = list.childElementCount > 0;
    empty.textContent = "Nothing has happened yet.";
  }

  function draw(entry) {
    const [year, month, date] = entry.day.split("-").map(Number);
    const today = new Date(year, month - 1, date).toLocaleDateString(undefined, { year: "numeric", month: "long", day: "numeric" });
    const item = el(
      "li", { class: "crm-entry" },
      el("span", { class: "crm-entry-icon", "aria-hidden": "true" }, entry.icon),
      el(
        "div", { class: "crm-entry-body" },
        el("div", { class: "crm-entry-title" }, entry.title),
        entry.text ? el("div", { class: "crm-entry-text" }, entry.text) : null,
        el("div", { class: "crm-entry-meta" }, [entry.kind, entry.time, entry.actor].filter(Boolean).join(" · ")),
      ),
    );
    if (today === day) return [item];
    day = today;
    return [el("li", { class: "crm-day" }, today), item];
  }

  function askMore() {
    if (!next || waiting) return;
    waiting = true;
    wire.ask("more", { after: next });
  }

  box.addEventListener("scroll", () => {
    if (box.scrollTop + box.clientHeight > box.scrollHeight - 120) askMore();
  });
  wire.ask("hello");
  return () => wire.close();
}

export default { render };

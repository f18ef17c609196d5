// The form: native inputs made from a description. Each change goes to the kernel, which answers with problems.

const TYPES = { email: "email", phone: "tel", date: "date", secret: "password" };
const MODES = { money: "decimal", decimal: "decimal", number: "decimal", integer: "numeric" };

function render({ model, el: root }) {
  const fields = new Map(); // name -> {read, write, error, ...}
  const wire = talk(model, root, { form: build, values: showValues, state: showState, suggestions, saved });
  const body = el("div", { class: "crm-form-body" });
  const note = el("div", { class: "crm-form-note", role: "status" });
  const save = el("button", { type: "button", class: "crm-button crm-primary crm-save", onclick: submit }, "Save");
  const revert = el("button", { type: "button", class: "crm-button crm-revert", onclick: discard }, "Revert");
  const foot = el("div", { class: "crm-form-foot" }, save, revert, note);
  const form = el("div", { class: "crm-form", role: "form" }, body, foot);
  root.append(form);
  const titles = new Map(); // id of a record that a field names -> what people call it
  let asking = null; // the box that suggestions are for
  let create = false;
  let pending = new Map(); // name -> calm sender

  function build(message) {
    create = message.create;
    form.setAttribute("aria-label", message.label);
    save.textContent = create ? "Create" : "Save";
    revert.textContent = create ? "Clear" : "Revert";
    fields.clear();
    pending = new Map();
    body.replaceChildren(...message.sections.map((section) => el(
      "fieldset", { class: "crm-section" },
      el("legend", {}, section.title),
      el("div", { class: "crm-fields" }, ...section.fields.map(makeField)),
    )));
  }

  // ------------------------------------------------------------- one field: label, input, help, error, conflict

  function makeField(spec) {
    const id = uid(spec.name);
    const help = el("div", { class: "crm-help", id: `${id}-help` }, spec.help);
    const error = el("div", { class: "crm-error", id: `${id}-error`, hidden: true });
    const found = el("div", { class: "crm-found", role: "status", hidden: true });
    const conflict = el("div", { class: "crm-conflict", role: "group", "aria-label": `${spec.label}: changed by somebody else`, hidden: true });
    const described = `${id}-error${spec.help ? ` ${id}-help` : ""}`;
    const send = (value) => {
      pending.get(spec.name)?.cancel();
      wire.ask("set", { field: spec.name, value });
    };
    const control = makeControl(spec, { id, path: spec.name, described, send, typing: typing(spec.name, send) });
    const required = spec.required ? el("span", { class: "crm-required", "aria-hidden": "true" }, " *") : null;
    const label = control.group
      ? el("div", { class: "crm-label", id: `${id}-label` }, spec.label, required)
      : el("label", { class: "crm-label", for: id }, spec.label, required);
    const mark = (bad) => control.inputs().forEach((input) => {
      input.setAttribute("aria-invalid", String(bad));
      if (spec.required) input.setAttribute("aria-required", "true");
    });
    fields.set(spec.name, { spec, ...control, error, found, conflict, mark });
    const wide = ["long_text", "parts"].includes(spec.input) ? " crm-wide" : "";
    return el(
      "div", { class: `crm-field crm-f-${spec.name}${wide}`, "data-field": spec.name },
      label, control.node, error, found, conflict, spec.help ? help : null,
    );
  }

  function typing(name, send) {
    const later = calm(send, 300);
    pending.set(name, later);
    return later;
  }

  function makeControl(spec, tools) {
    switch (spec.input) {
      case "boolean": return checkbox(spec, tools);
      case "choice": case "country": return select(spec, tools);
      case "choices": return checkboxes(spec, tools);
      case "texts": return tags(spec, tools);
      case "reference": return reference(spec, tools);
      case "parts": return rows(spec, tools);
      default: return text(spec, tools);
    }
  }

  function text(spec, { id, described, send, typing }) {
    const long = spec.input === "long_text";
    const input = el(long ? "textarea" : "input", {
      class: "crm-input", id, "aria-describedby": described, autocomplete: spec.input === "secret" ? "new-password" : "off",
      type: long ? null : (TYPES[spec.input] || "text"), inputmode: MODES[spec.input] || null, spellcheck: long ? "true" : "false",
      placeholder: spec.input === "instant" ? "2026-11-22T09:30Z" : null,
    });
    if (spec.input !== "secret") { // what is secret leaves the page once, with Create
      input.addEventListener("input", () => typing(input.value));
      input.addEventListener("change", () => send(input.value));
    }
    return { node: input, inputs: () => [input], read: () => input.value, write: (value) => { input.value = value; } };
  }

  function checkbox(spec, { id, described, send }) {
    const input = el("input", { type: "checkbox", id, "aria-describedby": described, onchange: () => send(input.checked) });
    return { node: el("div", { class: "crm-check" }, input), inputs: () => [input], read: () => input.checked, write: (value) => { input.checked = value; } };
  }

  function select(spec, { id, described, send }) {
    const input = el(
      "select", { class: "crm-input", id, "aria-describedby": described, onchange: () => send(input.value) },
      el("option", { value: "" }, spec.required ? "Choose…" : "—"),
      ...spec.choices.map(([value, words]) => el("option", { value }, words)),
    );
    return { node: input, inputs: () => [input], read: () => input.value, write: (value) => { input.value = value; } };
  }

  function checkboxes(spec, { id, described, send }) {
    const boxes = spec.choices.map(([value, words]) => {
      const box = el("input", { type: "checkbox", value, onchange: () => send(read()) });
      return { box, node: el("label", { class: "crm-choice" }, box, words) };
    });
    const read = () => boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
    const write = (values) => boxes.forEach(({ box }) => { box.checked = values.includes(box.value); });
    const node = el("div", { class: "crm-choices", role: "group", "aria-labelledby": `${id}-label`, "aria-describedby": described }, ...boxes.map((b) => b.node));
    return { node, group: true, inputs: () => [], read, write };
  }

  function tags(spec, { id, described, send }) {
    let values = [];
    const chips = el("span", { class: "crm-tags-list" });
    const input = el("input", { id, type: "text", "aria-describedby": described, autocomplete: "off", placeholder: "Add…" });
    const change = (next) => { write(next); send(values); };
    const write = (next) => {
      values = [...next];
      chips.replaceChildren(...values.map((value, i) => el(
        "span", { class: "crm-tag" }, value,
        el("button", { type: "button", class: "crm-tag-remove", "aria-label": `Remove ${value}`, onclick: () => { change(values.filter((_, j) => j !== i)); input.focus(); } }, "×"),
      )));
    };
    const commit = () => {
      const added = input.value.split(",").map((part) => part.trim()).filter((part) => part && !values.includes(part));
      input.value = "";
      if (added.length) change([...values, ...added]);
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === ",") { event.preventDefault(); commit(); }
      if (event.key === "Backspace" && !input.value && values.length) change(values.slice(0, -1));
    });
    input.addEventListener("blur", commit);
    return { node: el("div", { class: "crm-input crm-tags", onclick: () => input.focus() }, chips, input), inputs: () => [input], read: () => values, write };
  }

  function reference(spec, { id, described, send, path }) {
    let chosen = "";
    const shown = () => (chosen ? titles.get(chosen) || chosen : "");
    const combo = combobox({
      id, label: spec.label, describedby: described, placeholder: "Type to search",
      search: (typed) => { asking = combo; wire.ask("suggest", { field: path, text: typed }); },
      pick: (item) => { titles.set(item.id, item.label); write(item.id); send(chosen); },
    });
    const write = (value) => {
      chosen = value;
      combo.input.value = shown();
    };
    combo.input.addEventListener("change", () => { // emptied: no reference; half typed: back to what was chosen
      if (!combo.input.value.trim()) { write(""); send(""); } else combo.input.value = shown();
    });
    return { node: combo.box, inputs: () => [combo.input], read: () => chosen, write };
  }

  function rows(spec, { id, described, send, typing }) {
    let lines = [];
    const list = el("div", { class: "crm-rows" });
    const read = () => lines.map((line) => Object.fromEntries(line.cells.map(({ part, control }) => [part.name, control.read()])));
    const add = (values = {}) => {
      const cells = spec.parts.map((part) => {
        const control = makeControl(part, { id: uid(part.name), path: `${spec.name}.${part.name}`, described, send: () => send(read()), typing: () => typing(read()) });
        if (part.name in values) control.write(values[part.name]);
        control.inputs().forEach((input) => input.setAttribute("aria-label", `${spec.label}: ${part.label}`));
        return { part, control };
      });
      const line = { cells };
      const remove = el("button", { type: "button", class: "crm-button crm-plain", "aria-label": `Remove this row of ${spec.label.toLowerCase()}`, onclick: () => { lines = lines.filter((l) => l !== line); line.node.remove(); send(read()); } }, "×");
      line.node = el("div", { class: "crm-row" }, ...cells.map(({ part, control }) => el("div", { class: "crm-row-cell" }, el("span", { class: "crm-row-label", "aria-hidden": "true" }, part.label), control.node)), remove);
      lines.push(line);
      list.append(line.node);
    };
    const write = (values) => { lines = []; list.replaceChildren(); values.forEach(add); };
    const more = el("button", { type: "button", class: "crm-button", onclick: () => add() }, "Add a row");
    const node = el("div", { role: "group", "aria-labelledby": `${id}-label`, "aria-describedby": described }, list, more);
    return { node, group: true, inputs: () => lines.flatMap((line) => line.cells.flatMap(({ control }) => control.inputs())), read, write };
  }

  // ------------------------------------------------------------- what the kernel says

  function showValues({ values, labels }) {
    for (const [id, title] of Object.entries(labels)) titles.set(id, title);
    for (const [name, value] of Object.entries(values)) {
      const field = fields.get(name);
      if (!field || pending.get(name)?.waiting()) continue; // what is being typed was not sent yet
      if (JSON.stringify(field.read()) !== JSON.stringify(value)) field.write(value);
    }
  }

  function showState({ problems, conflicts, dirty, found, moved, note: words }) {
    for (const [name, field] of fields) {
      const problem = problems[name] || "";
      field.error.textContent = problem;
      field.error.hidden = !problem;
      field.mark(Boolean(problem));
      showFound(name, field, found[name]);
      if (field.spec.input === "secret") field.inputs()[0].placeholder = moved[name] || "";
      showConflict(name, field, conflicts[name]);
      root.querySelector(`[data-field="${CSS.escape(name)}"]`)?.classList.toggle("crm-dirty", dirty.includes(name));
    }
    const secrets = Object.keys(readSecrets()).length > 0;
    save.disabled = !dirty.length && !secrets && !create;
    revert.disabled = !dirty.length && !Object.keys(problems).length;
    const count = dirty.length;
    const news = words && note.textContent !== words;
    note.textContent = words || (count && !create ? `${count} unsaved ${count === 1 ? "change" : "changes"}` : "");
    note.classList.toggle("crm-alert", Boolean(words));
    if (news) root.querySelector(".crm-conflict:not([hidden]) button, [aria-invalid=true]")?.focus();
  }

  function showFound(name, field, offer) {
    field.found.hidden = !offer;
    if (!offer) return field.found.replaceChildren();
    if (field.found.firstChild?.textContent === offer.words) return null; // the button keeps the focus
    const move = () => wire.ask("move", { field: name, filled: Object.keys(readSecrets()) });
    return field.found.replaceChildren(
      el("div", {}, offer.words),
      el("button", { type: "button", class: "crm-button crm-move", onclick: move }, offer.move),
    );
  }

  function showConflict(name, field, theirs) {
    field.conflict.hidden = theirs === undefined;
    if (theirs === undefined) return field.conflict.replaceChildren();
    const choose = (verb) => () => wire.ask(verb, { field: name });
    return field.conflict.replaceChildren(
      el("div", {}, "Somebody else saved: ", el("strong", {}, theirs || "(empty)")),
      el("button", { type: "button", class: "crm-button crm-keep", onclick: choose("keep") }, "Keep mine"),
      el("button", { type: "button", class: "crm-button crm-take", onclick: choose("take") }, "Take theirs"),
    );
  }

  function suggestions({ text: typed, items }) {
    if (asking && asking.input.value === typed) asking.show(items);
  }

  function saved() { // the page forgets what is secret
    for (const field of fields.values()) if (field.spec.input === "secret") field.write("");
  }

  // ------------------------------------------------------------- what a person does

  const readSecrets = () => Object.fromEntries(
    [...fields].filter(([, f]) => f.spec.input === "secret" && f.read()).map(([name, f]) => [name, f.read()]),
  );

  function submit() {
    for (const later of pending.values()) later.now();
    wire.ask("save", { secrets: readSecrets() });
  }

  function discard() {
    for (const later of pending.values()) later.cancel();
    saved();
    wire.ask("revert");
  }

  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); }
  });
  wire.ask("hello");
  return () => wire.close();
}

export default { render };

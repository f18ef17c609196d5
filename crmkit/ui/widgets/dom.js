// Helpers that every crmkit widget shares. Text from data goes through textContent only.

const ANSWER_MS = 3000;

/** Make an element: el("button", {class: "crm-button", onclick: f}, "Save"). */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && typeof value !== "string") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

let counter = 0;
/** An id that is unique in the page, for labels and descriptions. */
function uid(name) {
  counter += 1;
  return `crm-${name}-${counter}-${Math.random().toString(36).slice(2, 7)}`;
}

/** Call `f` once things have been calm for `ms`; the result has `now()`, `cancel()` and `waiting()`. */
function calm(f, ms) {
  let timer = null;
  let last = null;
  const later = (...args) => {
    last = args;
    clearTimeout(timer);
    timer = setTimeout(later.now, ms);
  };
  later.now = () => {
    if (last === null) return;
    const args = last;
    later.cancel();
    f(...args);
  };
  later.cancel = () => {
    clearTimeout(timer);
    last = null;
  };
  later.waiting = () => last !== null;
  return later;
}

/** Draw navigation buttons: items are {key, title, closable, dirty}. */
function drawTabs(nav, items, current, go, leave) {
  nav.replaceChildren(...items.map((item) => el(
    "span", { class: `crm-tab${item.key === current ? " crm-current" : ""}` },
    el("button", {
      type: "button", class: "crm-tab-go", "data-key": item.key, "aria-current": item.key === current ? "page" : null, onclick: () => go(item.key),
    }, item.title, item.dirty ? el("span", { title: "not saved" }, " •") : null),
    item.closable
      ? el("button", { type: "button", class: "crm-tab-close", "aria-label": `Close ${item.title}`, onclick: () => leave(item.key) }, "×")
      : null,
  )));
}

/**
 * Join a view to its kernel: `talk(model, el, {rows: f, ...})` returns {ask, tell, close}.
 * `ask` expects an answer and says so in the view when none comes; `tell` does not.
 */
function talk(model, root, answers) {
  const note = el("div", { class: "crm-problem", role: "alert", hidden: true });
  root.classList.add("crm");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's single keys (dd deletes a cell) stay out of our views
  root.addEventListener("keydown", keepKeys);
  root.append(note);
  let timer = null;
  const show = (text) => {
    note.textContent = text;
    note.hidden = !text;
  };
  const hear = (message) => {
    clearTimeout(timer);
    if (message.type === "problem") return show(message.text);
    show("");
    answers[message.type]?.(message);
  };
  const tell = (type, content = {}) => model.send({ type, ...content });
  const ask = (type, content = {}, patience = ANSWER_MS) => {
    clearTimeout(timer);
    timer = setTimeout(() => show("No answer from the kernel. If this stays, run the cell again."), patience);
    tell(type, content);
  };
  model.on("msg:custom", hear);
  return {
    ask,
    tell,
    close() {
      clearTimeout(timer);
      model.off("msg:custom", hear);
      root.removeEventListener("keydown", keepKeys);
    },
  };
}

/** Make a button one that gives the reason why it does nothing, as its hint; without a reason it works. */
function refuse(button, hint, reason) {
  hint.textContent = reason;
  hint.hidden = true;
  for (const [name, value] of [["aria-disabled", "true"], ["aria-describedby", hint.id], ["title", reason]]) {
    if (reason) button.setAttribute(name, value);
    else button.removeAttribute(name);
  }
}

/** Keep keys from the notebook, except the one that saves it. */
function keepKeys(event) {
  if (!((event.ctrlKey || event.metaKey) && event.key === "s")) event.stopPropagation();
}

/** A text input with suggestions below it (ARIA combobox with a listbox); `pick` gets the chosen item. */
function combobox({ label, placeholder, value = "", search, pick, type = "text", id = uid("combo"), describedby }) {
  const listId = uid("list");
  const input = el("input", {
    class: "crm-input", id, type, placeholder, role: "combobox", autocomplete: "off", spellcheck: "false",
    "aria-label": label, "aria-expanded": "false", "aria-controls": listId, "aria-autocomplete": "list",
    "aria-describedby": describedby,
  });
  input.value = value;
  const list = el("ul", { class: "crm-options", id: listId, role: "listbox", "aria-label": label || "Matches", hidden: true });
  const box = el("div", { class: "crm-combo" }, input, list);
  let items = [];
  let active = -1;
  const close = () => {
    list.hidden = true;
    list.replaceChildren();
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (item) => {
    later.cancel();
    close();
    pick(item);
  };
  const mark = (index) => {
    active = items.length ? (index + items.length) % items.length : -1;
    [...list.querySelectorAll("[role=option]")].forEach((option, i) => {
      option.setAttribute("aria-selected", String(i === active));
      if (i === active) {
        input.setAttribute("aria-activedescendant", option.id);
        option.scrollIntoView({ block: "nearest" });
      }
    });
  };
  const show = (found, empty = "Nothing found") => {
    items = found;
    list.replaceChildren(...items.map((item, index) => el(
      "li",
      {
        role: "option", id: `${listId}-${index}`, class: "crm-option", "aria-selected": "false", "data-id": item.id,
        onpointerdown: (event) => event.preventDefault(), // the input keeps the focus until the click
        onclick: () => choose(item),
      },
      el("span", { class: "crm-option-label" }, item.label),
      el("span", { class: "crm-option-detail" }, item.detail || ""),
    )));
    if (!items.length) {
      list.append(el("li", { role: "option", class: "crm-option crm-none", "aria-disabled": "true", "aria-selected": "false" }, empty));
    }
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    if (items.length) mark(0);
  };
  const later = calm((text) => search(text), 120);
  input.addEventListener("input", () => {
    if (input.value.trim()) return later(input.value);
    later.cancel();
    close();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) { if (input.value.trim()) search(input.value); } else mark(active + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter" && !list.hidden && items[active]) {
      event.preventDefault();
      choose(items[active]);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });
  input.addEventListener("blur", close);
  return { box, input, show, close };
}

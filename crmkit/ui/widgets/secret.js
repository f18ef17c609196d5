// One sensitive field. What is revealed lives in one element, for a short time, and goes when the tab is hidden.

function render({ model, el: root }) {
  const wire = talk(model, root, { secret: build, value: show });
  const id = uid("secret");
  const label = el("span", { class: "crm-label", id: `${id}-label` });
  const value = el("output", { class: "crm-secret-value", "aria-labelledby": `${id}-label`, "aria-live": "off" });
  const left = el("span", { class: "crm-quiet crm-secret-left" });
  const hint = el("span", { class: "crm-quiet", id: `${id}-hint`, hidden: true });
  const reveal = el("button", { type: "button", class: "crm-button crm-reveal", onclick: askReason }, "Reveal");
  const hide = el("button", { type: "button", class: "crm-button crm-hide", hidden: true, onclick: () => cover() }, "Hide");
  const replace = el("button", { type: "button", class: "crm-button crm-replace", onclick: askValue }, "Replace");
  const prompt = el("form", { class: "crm-secret-prompt", hidden: true });
  root.append(el(
    "div", { class: "crm-secret", role: "group", "aria-labelledby": `${id}-label` },
    label, el("div", { class: "crm-secret-line" }, value, left, reveal, hide, replace, hint), prompt,
  ));
  let masked = "";
  let refused = "";
  let once = false;
  let clock = null;

  function build(message) {
    label.textContent = message.label;
    masked = message.masked;
    once = Boolean(message.once);
    refused = message.refused || "";
    refuse(reveal, hint, refused);
    replace.hidden = once;
    reveal.setAttribute("aria-label", `Reveal ${message.label}`);
    replace.setAttribute("aria-label", `${masked ? "Replace" : "Enter"} ${message.label}`);
    replace.textContent = masked ? "Replace" : "Enter";
    closePrompt();
    cover();
  }

  function cover() {
    clearInterval(clock);
    value.textContent = masked || "not given";
    value.classList.toggle("crm-quiet", !masked);
    value.classList.remove("crm-open");
    left.textContent = "";
    hide.hidden = true;
    reveal.hidden = !masked || once;
  }

  function show(message) {
    closePrompt();
    if (document.hidden) return;
    clearInterval(clock);
    value.textContent = message.value;
    value.classList.add("crm-open");
    hide.hidden = false;
    reveal.hidden = true;
    const end = Date.now() + message.seconds * 1000;
    const tick = () => {
      const seconds = Math.ceil((end - Date.now()) / 1000);
      if (seconds <= 0) cover();
      else left.textContent = `hides in ${seconds} s`;
    };
    clock = setInterval(tick, 250);
    tick();
  }

  function closePrompt() {
    prompt.replaceChildren();
    prompt.hidden = true;
  }

  function open(input, words, send) {
    const done = () => {
      const typed = input.value;
      input.value = "";
      send(typed);
    };
    prompt.onsubmit = (event) => { event.preventDefault(); done(); };
    prompt.onkeydown = (event) => { if (event.key === "Escape") closePrompt(); };
    prompt.replaceChildren(
      input,
      el("button", { type: "submit", class: "crm-button crm-primary" }, words),
      el("button", { type: "button", class: "crm-button", onclick: closePrompt }, "Cancel"),
    );
    prompt.hidden = false;
    input.focus();
  }

  function askReason() {
    if (refused) { hint.hidden = false; return; }
    const input = el("input", { class: "crm-input", type: "text", required: true, autocomplete: "off", placeholder: "Why do you need it? (kept in the audit log)", "aria-label": `Reason to reveal ${label.textContent}` });
    open(input, "Show", (reason) => wire.ask("reveal", { reason }));
  }

  function askValue() {
    const input = el("input", { class: "crm-input", type: "password", autocomplete: "new-password", placeholder: "New value (empty removes it)", "aria-label": `New ${label.textContent}` });
    open(input, "Store", (typed) => wire.ask("replace", { value: typed }));
  }

  const onHidden = () => { if (document.hidden) cover(); };
  document.addEventListener("visibilitychange", onHidden);
  wire.ask("hello");
  return () => {
    cover();
    document.removeEventListener("visibilitychange", onHidden);
    wire.close();
  };
}

export default { render };

// Erasing a person: a quiet button, the plan with its question, the certificate in its place.

const ERASE_MS = 120000; // the history may have to be written anew

function render({ model, el: root }) {
  const wire = talk(model, root, { erase: build, plan: showPlan, certificate: showCertificate });
  const id = uid("erase");
  let refused = "";
  const hint = el("span", { id: `${id}-hint`, class: "crm-quiet", hidden: true });
  const begin = el("button", { type: "button", class: "crm-button crm-plain crm-erase-begin", "aria-expanded": "false", onclick: ask });
  const panel = el("form", { class: "crm-erase-panel", hidden: true, "aria-labelledby": `${id}-title` });
  const certificate = el("div", { class: "crm-certificate", role: "group", "aria-labelledby": `${id}-done`, hidden: true });
  const line = el("div", { class: "crm-erase-line" }, begin, hint);
  root.append(el("div", { class: "crm-erase" }, line, panel, certificate));

  function build(message) {
    refused = message.refused;
    begin.textContent = "Erase…";
    begin.setAttribute("aria-label", `Erase this ${message.noun}…`);
    refuse(begin, hint, refused);
    panel.dataset.noun = message.noun;
    close();
  }

  function ask() {
    if (refused) { hint.hidden = false; return; }
    panel.replaceChildren(el("p", { class: "crm-quiet" }, "Looking up what would go…"));
    open(true);
    wire.ask("plan");
  }

  function open(shown) {
    panel.hidden = !shown;
    line.hidden = shown;
    begin.setAttribute("aria-expanded", String(shown));
  }

  function close() {
    panel.replaceChildren();
    open(false);
  }

  function leave() {
    close();
    begin.focus();
    look(begin);
  }

  function showPlan({ lines, notes }) {
    if (panel.hidden) return; // cancelled meanwhile
    const reason = el("input", { class: "crm-input", id: `${id}-reason`, type: "text", required: true, autocomplete: "off", placeholder: "Best the number of the request, not a name" });
    const sure = el("input", { type: "checkbox", id: `${id}-sure`, required: true });
    const go = el("button", { type: "submit", class: "crm-button crm-danger" }, "Erase for good");
    panel.replaceChildren(
      el("div", { class: "crm-erase-title", id: `${id}-title`, role: "heading", "aria-level": "3" }, `Erase this ${panel.dataset.noun} for good?`),
      el("ul", {}, ...lines.map((text) => el("li", {}, text))),
      notes.length ? el("div", { class: "crm-erase-notes" }, el("div", {}, "Not reached:"), el("ul", {}, ...notes.map((text) => el("li", {}, text)))) : "",
      el("label", { class: "crm-label", for: `${id}-reason` }, "Reason, kept in the audit log and on the certificate"),
      reason,
      el("label", { class: "crm-erase-sure", for: `${id}-sure` }, sure, "I understand that nobody can undo this"),
      el("div", { class: "crm-erase-buttons" }, go, el("button", { type: "button", class: "crm-button", onclick: leave }, "Cancel")),
    );
    panel.onsubmit = (event) => {
      event.preventDefault();
      go.textContent = "Erasing…";
      go.disabled = true;
      wire.ask("erase", { reason: reason.value, understood: sure.checked }, ERASE_MS);
    };
    reason.focus();
    panel.scrollIntoView({ block: "nearest" });
  }

  panel.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });

  function showCertificate({ text, done }) {
    panel.replaceChildren();
    panel.hidden = line.hidden = true;
    const title = el("div", { class: "crm-erase-title", id: `${id}-done`, role: "heading", "aria-level": "3", tabindex: "-1" }, "Certificate of erasure");
    const copy = el("button", { type: "button", class: "crm-button", onclick: () => copyText(text, copy) }, "Copy");
    certificate.replaceChildren(title, el("pre", { class: "crm-certificate-text" }, text), copy);
    certificate.hidden = false;
    if (!done) return;
    title.focus({ preventScroll: true });
    look(root.closest(".crm-card") || root);
  }

  /** Bring into sight what is left, once the notebook has drawn the shorter card. */
  function look(node) {
    setTimeout(() => node.scrollIntoView({ block: "nearest" }), 400);
  }

  async function copyText(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(certificate.querySelector("pre"));
      button.textContent = "Selected; copy it with the keyboard";
    }
  }

  wire.ask("hello");
  return () => wire.close();
}

export default { render };

// What the buttons inside the page's HTML do; see markup.py.
"use strict";

function field(id) {
  return document.querySelector(`#${CSS.escape(id)} textarea, #${CSS.escape(id)} input`);
}

function put(id, value) {
  const element = field(id);
  if (!element) return null;
  const prototype = element instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(prototype.prototype, "value").set.call(element, value);
  element.dispatchEvent(new Event("input", { bubbles: true }));
  element.dispatchEvent(new Event("change", { bubbles: true }));
  return element;
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("[data-fill], [data-pick]");
  if (!button) return;
  if (button.dataset.pick) {
    // Twice the same picture is two events.
    put("sp-picked", "");
    put("sp-picked", button.dataset.pick);
    window.scrollTo({ top: 0 });
    return;
  }
  const fields = Object.entries(JSON.parse(button.dataset.fill));
  const elements = fields.map(([id, value]) => put(id, value));
  elements[0]?.focus();
});

// On a phone the pictures stand below the settings.
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("[id$='-draw']");
  const results = button && document.getElementById(button.id.replace(/-draw$/, "-results"));
  if (results && results.getBoundingClientRect().top > window.innerHeight - 200) {
    results.scrollIntoView({ block: "start" });
  }
});

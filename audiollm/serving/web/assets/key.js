// Asks for an API key, as soon as the server has asked for one.

import { hasKey, setKey } from "./client.js";
import { make } from "./dom.js";

export class KeyField extends HTMLElement {
  connectedCallback() {
    if (this._isBuilt) return;
    this._isBuilt = true;
    this.hidden = true;
    this._input = make("input", { type: "password", autocomplete: "off", "aria-label": "API key", name: "key" });
    this._note = make("span", { class: "note", role: "status" });
    const form = make(
      "form",
      {
        class: "row",
        onsubmit: (event) => {
          event.preventDefault();
          this.hidden = true;
          setKey(this._input.value);
        },
      },
      make("label", { class: "field grow" }, make("span", {}, "API key"), this._input),
      make("button", { type: "submit", class: "primary" }, "Use key"),
    );
    this.append(form, this._note);
    window.addEventListener("audiollm-key-needed", () => {
      this.hidden = false;
      this._note.textContent = hasKey() ? "This server does not know that key." : "This server asks for a key.";
    });
  }
}

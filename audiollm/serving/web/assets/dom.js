// Elements by calls: make("button", {onclick, class: "…"}, "text", child). Text is always text, never HTML.

export function make(tag, properties = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (value === true) found.setAttribute(name, "");
    else if (value !== false && value != null) found.setAttribute(name, value);
  }
  found.append(...children.filter((child) => child != null));
  return found;
}

export function button(text, onclick, properties = {}) {
  return make("button", { type: "button", onclick, ...properties }, text);
}

// A labelled control; the label is above it, or behind a check box.
export function labelled(text, control, isBehind = false) {
  return isBehind
    ? make("label", { class: "switch" }, control, " ", text)
    : make("label", { class: "field" }, make("span", {}, text), control);
}

export function player(blob, label) {
  return make("audio", { controls: true, preload: "metadata", "aria-label": label, src: URL.createObjectURL(blob) });
}

export function blobOfBase64(text, type) {
  return new Blob([bytesOfBase64(text)], { type });
}

export function bytesOfBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

export async function base64OfBlob(blob) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

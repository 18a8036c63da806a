// The server's own routes, as any client calls them: with the key that the user gave, if the server asks for one.

const STORED = "audiollm-key";
let key = sessionStorage.getItem(STORED) ?? "";

export class ApiError extends Error {
  constructor(message, status, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function setKey(value) {
  key = value.trim();
  sessionStorage.setItem(STORED, key);
  window.dispatchEvent(new Event("audiollm-key"));
}

export function hasKey() {
  return key !== "";
}

export async function request(path, { json, form, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const asked = { headers, signal };
  if (json) {
    headers["Content-Type"] = "application/json";
    Object.assign(asked, { method: "POST", body: JSON.stringify(json) });
  } else if (form) {
    const body = new FormData();
    for (const [name, value] of Object.entries(form)) body.append(name, value);
    Object.assign(asked, { method: "POST", body });
  }
  let response;
  try {
    response = await fetch(path, asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server cannot be reached: is it still running?", 0);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

async function errorOf(response) {
  if (response.status === 401) window.dispatchEvent(new Event("audiollm-key-needed"));
  try {
    const { message, code } = (await response.json()).error;
    return new ApiError(message, response.status, code);
  } catch {
    return new ApiError(`the server answered ${response.status}`, response.status); // and no JSON
  }
}

// The events of a stream, as objects, until "[DONE]".
export async function* events(response) {
  let held = "";
  for await (const text of texts(response)) {
    held += text;
    const lines = held.split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      const found = JSON.parse(data);
      if (found.error) throw new ApiError(found.error.message, 0);
      yield found;
    }
  }
  throw new ApiError("the answer broke off: the server may have been stopped", 0);
}

async function* texts(response) {
  const decoder = new TextDecoder();
  for await (const chunk of chunks(response)) yield decoder.decode(chunk, { stream: true });
}

export async function* chunks(response) {
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

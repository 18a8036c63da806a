// Talk: text or a recording in, text and speech out while they come.

import { events, request, requestJson, chunks } from "./client.js";
import { Attaching } from "./attaching.js";
import { base64OfBlob, button, bytesOfBase64, labelled, make, player } from "./dom.js";
import { PcmPlayer } from "./sound.js";

const QUESTIONS = [
  "Transcribe the recording.",
  "Describe the recording.",
  "Is this speech, music or another sound?",
  "Is the speaker a man or a woman?",
];

// A chat with recordings does not fit into a shorter context: a minute of sound has 1,500 tokens.
const CHAT_TOKENS = 4096;

export class Talk extends HTMLElement {
  connectedCallback() {
    if (this._isBuilt) return;
    this._isBuilt = true;
    this._messages = []; // as the next request sends them
    this._spoken = new Map(); // what was spoken of them, in words
    this._build();
    this._load();
    window.addEventListener("audiollm-key", () => this._load());
  }

  // The player of the latest answer; tests look at it too.
  get player() {
    return this._player;
  }

  _build() {
    this._hint = make(
      "p",
      { class: "hint" },
      "Record or upload something and ask about it, write something, or have a text read aloud.",
    );
    this._log = make("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": "Conversation", tabindex: 0 }, this._hint);
    this._text = make("textarea", { rows: 2, placeholder: "Write something, or record it", "aria-label": "Message" });
    this._text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this._send();
      }
    });
    this.addEventListener("keydown", (event) => event.key === "Escape" && this._stop());
    this._attaching = new Attaching({
      onchange: (file) => (this._questions.hidden = !file),
      onerror: (error) => this._say(error.message),
    });
    this._attaching.takeDrops(this);
    this._questions = make(
      "div",
      { class: "questions", hidden: true },
      ...QUESTIONS.map((question) => button(question, () => this._ask(question), { class: "quiet" })),
    );
    this._mode = make(
      "select",
      { onchange: () => this._showMode() },
      make("option", { value: "answer" }, "answer me"),
      make("option", { value: "read" }, "read my text aloud"),
    );
    this._aloud = make("input", { type: "checkbox" });
    this._remembers = make("input", { type: "checkbox", checked: true });
    this._voice = make("select", {});
    this._words = make("input", { type: "text", placeholder: "a woman, slowly" });
    this._note = make("div", { class: "note", role: "alert" });
    this._sendButton = button("Send", () => this._send(), { class: "primary send" });
    this._stopButton = button("Stop", () => this._stop(), { class: "stop", disabled: true });
    this._speaking = make(
      "details",
      { class: "voice", open: true },
      make("summary", {}, "Speech and voice"),
      make(
        "div",
        { class: "row wrap" },
        labelled("The model shall", this._mode),
        labelled("Voice", this._voice),
        labelled("Voice in words", this._words),
      ),
    );
    this._speaking.open = window.innerWidth > 600;
    const composer = make(
      "div",
      { class: "composer" },
      this._attaching.chosen,
      this._questions,
      this._text,
      make(
        "div",
        { class: "row wrap" },
        ...this._attaching.controls,
        make("span", { class: "grow" }),
        this._stopButton,
        this._sendButton,
      ),
      this._note,
      make(
        "div",
        { class: "row wrap switches" },
        labelled("answer aloud", this._aloud, true),
        labelled("remember the chat", this._remembers, true),
        button("New chat", () => this._clear(), { class: "quiet" }),
      ),
      this._speaking,
    );
    this.append(this._log, composer);
  }

  async _load() {
    try {
      const { data } = await requestJson("/v1/models");
      this._model = data[0].id;
      const tasks = data[0].tasks;
      if (!this._contextTokens) this._remembers.checked = !(data[0].context_tokens < CHAT_TOKENS);
      this._contextTokens = data[0].context_tokens;
      const canSpeak = tasks.includes("speech");
      this._speaking.hidden = !canSpeak;
      this._aloud.disabled = !canSpeak;
      for (const control of this._attaching.controls) control.hidden = !tasks.includes("transcription");
      this._voice.replaceChildren(...data[0].voices.map((name) => make("option", { value: name }, name)));
      this._say("");
    } catch (error) {
      this._say(error.status === 401 ? "Give the key above." : error.message);
    }
  }

  _showMode() {
    const isReading = this._mode.value === "read";
    this._aloud.disabled = isReading;
    this._text.placeholder = isReading ? "What shall be read?" : "Write something, or record it";
  }

  _say(text) {
    this._note.textContent = text;
  }

  _ask(question) {
    this._text.value = question;
    this._send();
  }

  _clear() {
    this._stop();
    this._messages = [];
    this._spoken.clear();
    this._log.replaceChildren(this._hint);
    this._say("");
    this._text.focus();
  }

  _stop() {
    this._abort?.abort();
    this._player?.stop();
  }

  async _send() {
    if (this._abort) return;
    const text = this._text.value.trim();
    const isReading = this._mode.value === "read";
    const file = isReading ? null : this._attaching.file;
    if (!text && !file) {
      this._say(isReading ? "Write what shall be read." : "Write something, or give a recording.");
      return;
    }
    if (!this._model) await this._load();
    if (!this._model) return;
    this._say("");
    const abort = (this._abort = new AbortController());
    this._player?.close();
    this._player = new PcmPlayer();
    if (isReading || this._aloud.checked) this._player.open();
    this._setBusy(true);
    const bubble = this._bubbles(text, file);
    try {
      if (isReading) await this._read(text, bubble, abort.signal);
      else await this._answer(await this._question(text, file), bubble, abort.signal);
    } catch (error) {
      if (error.name === "AbortError") bubble.note("stopped");
      else bubble.fail(error.message);
      this._text.value ||= text; // to be sent again, or changed
    } finally {
      bubble.end(this._player);
      this._abort = null;
      this._setBusy(false);
    }
  }

  _setBusy(isBusy) {
    this._sendButton.disabled = isBusy;
    this._stopButton.disabled = !isBusy;
    this._log.setAttribute("aria-busy", String(isBusy));
  }

  _bubbles(text, file) {
    const asked = make("div", { class: "bubble user" }, text || null, file && player(file, `Listen to ${file.name}`));
    this._hint.remove();
    const answer = new Bubble(this._log);
    this._log.append(asked, answer.element);
    this._text.value = "";
    if (file) this._attaching.set(null);
    this._log.scrollTop = this._log.scrollHeight;
    return answer;
  }

  async _question(text, file) {
    const content = [];
    if (file) content.push({ type: "input_audio", input_audio: { data: await base64OfBlob(file), format: "wav" } });
    if (text) content.push({ type: "text", text: this._withVoice(text) });
    return { role: "user", content };
  }

  // Answers have no voice in words of their own: the request says it, as the server does for voices with names.
  _withVoice(text) {
    const words = this._words.value.trim();
    return this._aloud.checked && words ? `${text}\n(${words})` : text;
  }

  async _answer(question, bubble, signal) {
    const json = { model: this._model, messages: [...(this._remembers.checked ? this._messages : []), question], stream: true };
    if (this._aloud.checked) {
      Object.assign(json, {
        modalities: ["text", "audio"],
        audio: { voice: this._voice.value || "default", format: "pcm16" },
      });
    }
    let text = "";
    let id = null;
    for await (const event of events(await this._completion(json, signal))) {
      const delta = event.choices[0]?.delta ?? {};
      const piece = delta.content ?? delta.audio?.transcript ?? "";
      text += piece;
      bubble.write(piece);
      id ??= delta.audio?.id ?? null;
      if (delta.audio?.data) this._player.write(bytesOfBase64(delta.audio.data));
      if (event.choices[0]?.finish_reason === "length") bubble.note("cut: as long as an answer may be");
    }
    // What was spoken is called by its id, so that the model has its own codes before it, not only the words.
    const answer = { role: "assistant", ...(id ? { audio: { id } } : { content: text }) };
    if (id) this._spoken.set(answer, text);
    this._messages.push(question, answer);
  }

  async _completion(json, signal) {
    try {
      return await request("/v1/chat/completions", { json, signal });
    } catch (error) {
      if (error.code !== "audio_not_found") throw error;
      // The server keeps what it said for an hour; after that, its words have to do.
      for (const [answer, text] of this._spoken) {
        delete answer.audio;
        answer.content = text;
      }
      this._spoken.clear();
      return request("/v1/chat/completions", { json, signal });
    }
  }

  async _read(text, bubble, signal) {
    bubble.write(text);
    const json = { model: this._model, input: text, voice: this._voice.value || "default", response_format: "pcm" };
    const words = this._words.value.trim();
    if (words) json.instructions = words;
    const response = await request("/v1/audio/speech", { json, signal });
    for await (const chunk of chunks(response)) this._player.write(chunk);
  }
}

// An answer in the making.
class Bubble {
  constructor(log) {
    this._log = log;
    this._text = make("span", { class: "text" });
    this._wait = make("span", { class: "wait", "aria-label": "thinking" }, "…");
    this.element = make("div", { class: "bubble assistant" }, this._text, this._wait);
  }

  write(piece) {
    if (piece) this._wait.remove();
    // Whoever has scrolled up reads something else.
    const isAtEnd = this._log.scrollHeight - this._log.scrollTop - this._log.clientHeight < 40;
    this._text.append(piece);
    if (isAtEnd) this._log.scrollTop = this._log.scrollHeight;
  }

  note(text) {
    this.element.append(make("div", { class: "note" }, text));
  }

  fail(text) {
    this.element.classList.add("failed");
    this.element.append(make("div", { class: "note", role: "alert" }, text));
  }

  end(pcm) {
    this._wait.remove();
    const wav = pcm.wav();
    if (wav) this.element.append(player(wav, "Listen to the answer again"));
    this._log.scrollTop = this._log.scrollHeight;
  }
}

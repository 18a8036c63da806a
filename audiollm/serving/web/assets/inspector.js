// The inspector: what the model hears of a recording, and how sure it is of its answer.

import { request, requestJson } from "./client.js";
import { Attaching } from "./attaching.js";
import { base64OfBlob, blobOfBase64, button, labelled, make, player } from "./dom.js";
import { colour, pictureOf, Timeline } from "./timeline.js";

const HEARD_SECONDS = 0.5; // of a single code, over and over
const NAMES = { sound_type: "Kind of recording", linguistic_content: "Words", summary: "Scene", events: "Sounds" };

export class Inspector extends HTMLElement {
  connectedCallback() {
    if (this._isBuilt) return;
    this._isBuilt = true;
    this._build();
    this._load();
    window.addEventListener("audiollm-key", () => this._load());
  }

  _build() {
    this._note = make("div", { class: "note", role: "alert" });
    this._attaching = new Attaching({
      onchange: (file) => this._take(file),
      onerror: (error) => (this._note.textContent = error.message),
    });
    this._attaching.takeDrops(this);
    this._sections = make("div", { class: "sections", hidden: true });
    this._intro = make("p", { class: "hint" }, "Record or upload something to see what the model hears of it.");
    this.append(
      make("div", { class: "row wrap" }, ...this._attaching.controls),
      this._attaching.chosen,
      this._note,
      this._intro,
      this._sections,
    );
  }

  async _load() {
    try {
      this._facts = await requestJson("/v1/inspector");
      this._note.textContent = "";
      if (!this._facts.tokenizers.own) {
        this._note.textContent = "This model has no audio tokenizer, so there is nothing to look into.";
        for (const control of this._attaching.controls) control.hidden = true;
      }
    } catch (error) {
      this._note.textContent = error.status === 401 ? "Give the key above." : error.message;
    }
  }

  async _take(file) {
    this._sections.hidden = true;
    this._sections.replaceChildren();
    this._intro.hidden = Boolean(file);
    this._note.textContent = "";
    if (!file) return;
    if (!this._facts) await this._load();
    if (!this._facts) return;
    this._note.textContent = "listening …";
    try {
      const data = await requestJson("/v1/inspector/recording", { form: { file, tokenizer: "own" } });
      if (this._attaching.file !== file) return; // another one was chosen meanwhile
      this._note.textContent = "";
      this._sections.hidden = false;
      const { own, other } = this._facts.tokenizers;
      this._sections.append(
        new Hearing("What the tokenizer hears", own, true).show(data),
        sectionOf("What the model says of it", new Description(file).element),
        sectionOf("Token by token", new Chances(file, this._facts).element),
        sectionOf("Through the codes and back", new Rebuilding(file, own, "own").element),
      );
      this._sections.append(other ? await this._second(file, other) : sectionOf("A second tokenizer", howToCompare()));
    } catch (error) {
      this._note.textContent = error.message;
    }
  }

  async _second(file, other) {
    const data = await requestJson("/v1/inspector/recording", { form: { file, tokenizer: "other" } });
    const element = new Hearing(`A second tokenizer: ${other.name}`, other, false).show(data);
    element.append(new Rebuilding(file, other, "other").element);
    return element;
  }
}

function howToCompare() {
  return make(
    "p",
    { class: "hint" },
    "To see another audio tokenizer beside this one, start the server with ",
    make("code", {}, "--compare-tokenizer FOLDER"),
    ".",
  );
}

function sectionOf(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}

// Waveform, mel, codes and gate.
class Hearing {
  constructor(title, tokenizer, canHear) {
    this._canHear = canHear && tokenizer.can_decode;
    this._timeline = new Timeline({ onselect: (index) => this._select(index), onenter: () => this._hear() });
    this._about = make("p", { class: "hint" });
    this._code = make("div", { class: "code", "aria-live": "polite" });
    this._title = title;
  }

  show(data) {
    this._data = data;
    const counted =
      data.commonness_of === "checkpoint" ? "how common it was in training" : "how common it is in this recording";
    this._about.append(
      `${data.codes.length} codes of ${data.codebook_size}, ${data.frame_rate} a second. `,
      make("span", { class: "scale", role: "img", "aria-label": "rare to common" }),
      ` Colour of a code: ${counted}, from rare to common. `,
      data.gate ? gateInWords(data.gate) : `No gate: ${data.no_gate}.`,
      data.shown_seconds < data.seconds
        ? ` Shown are the first ${data.shown_seconds.toFixed(0)} s of ${data.seconds.toFixed(1)} s.`
        : "",
    );
    const element = sectionOf(this._title, this._about, this._timeline.element, this._code);
    this._timeline.show(data);
    // Sizes are known only once it is in the page.
    requestAnimationFrame(() => this._timeline.show(data));
    return element;
  }

  _select(index) {
    const data = this._data;
    const code = data.codes[index];
    const times = data.codes.filter((one) => one === code).length;
    const start = index / data.frame_rate;
    const nearest = data.nearest[code] ?? [];
    const gate = data.gate && data.gate[Math.floor((index * data.gate.length) / data.codes.length)];
    this._selected = code;
    this._code.replaceChildren(
      make(
        "div",
        {},
        make("span", { class: "swatch", style: `background: ${colour(data.commonness[index])}` }),
        make("b", {}, `code ${code}`),
        ` at ${start.toFixed(2)} s, ${times === 1 ? "once" : `${times} times`} here`,
        gate == null ? "" : `, gate ${gate.toFixed(2)}`,
      ),
      make(
        "div",
        { class: "row wrap" },
        this._canHear ? button(`▶ Hear code ${code}`, () => this._hear(code), { class: "hear" }) : null,
        nearest.length ? make("span", { class: "hint" }, "nearest:") : null,
        ...nearest.map(([other, distance]) =>
          this._canHear
            ? button(`▶ ${other}`, () => this._hear(other), { class: "quiet", title: `distance ${distance}` })
            : make("code", { title: `distance ${distance}` }, String(other)),
        ),
      ),
    );
  }

  async _hear(code = this._selected) {
    if (!this._canHear) return;
    const codes = Array(Math.ceil(HEARD_SECONDS * this._data.frame_rate)).fill(code);
    try {
      const response = await request("/v1/audio/tokens/decode", { json: { codes, response_format: "wav", seed: 0 } });
      this._sound?.pause();
      this._sound = new Audio(URL.createObjectURL(await response.blob()));
      this._sound.dataset.code = code;
      this._sound.addEventListener("ended", () => (document.body.dataset.audiollmHeardCode = code));
      await this._sound.play();
    } catch (error) {
      this._code.append(make("div", { class: "note", role: "alert" }, error.message));
    }
  }
}

function gateInWords(gate) {
  const isFlat = Math.max(...gate) - Math.min(...gate) < 0.02;
  const what = "Curve: the SAE gate, 0 to 1, how much of the acoustic detail returns";
  return isFlat ? `${what}; here it is nearly flat, so it tells one sound from another hardly at all.` : `${what}.`;
}

// A SAP record as cards.
class Description {
  constructor(file) {
    this._file = file;
    this._cards = make("div", { class: "cards" });
    this._button = button("Ask the model", () => this._ask());
    this.element = make(
      "div",
      {},
      make(
        "p",
        { class: "hint" },
        "A record of words, voice and sounds (SAP), asked field by field. What a model was not trained to tell, it guesses.",
      ),
      this._button,
      this._cards,
    );
  }

  async _ask() {
    this._button.disabled = true;
    this._cards.replaceChildren(make("p", { class: "hint" }, "asking …"));
    try {
      const { fields } = await requestJson("/v1/inspector/description", { form: { file: this._file } });
      this._cards.replaceChildren(...fields.map(cardOf));
    } catch (error) {
      this._cards.replaceChildren(make("p", { class: "note", role: "alert" }, error.message));
    } finally {
      this._button.disabled = false;
    }
  }
}

function cardOf({ name, question, answer, why_not: whyNot }) {
  return make(
    "div",
    { class: whyNot ? "card empty" : "card", title: question ?? "" },
    make("h4", {}, NAMES[name] ?? `Voice: ${name}`),
    make("p", {}, whyNot ?? (answer || "(no answer)")),
  );
}

// Prompt and answer, each token with its probability.
class Chances {
  constructor(file, facts) {
    this._file = file;
    this._model = facts.model;
    if (facts.why_no_chances) {
      this.element = make("p", { class: "hint" }, `Not to be had here: ${facts.why_no_chances}.`);
      return;
    }
    this._question = make("input", { type: "text", value: "Transcribe the recording." });
    this._answer = make("input", { type: "text", placeholder: "empty: the model's own answer" });
    this._show = button("Show tokens", () => this._ask());
    this._tokens = make("div", { class: "tokens" });
    this._detail = make("div", { class: "detail", "aria-live": "polite" });
    this.element = make(
      "div",
      {},
      make(
        "div",
        { class: "row wrap" },
        labelled("Question", this._question),
        labelled("Answer", this._answer),
        this._show,
      ),
      this._tokens,
      this._detail,
    );
  }

  async _ask() {
    this._show.disabled = true;
    this._detail.replaceChildren();
    this._tokens.replaceChildren(make("span", { class: "hint" }, "asking …"));
    try {
      const audio = { data: await base64OfBlob(this._file), format: "wav" };
      const content = [
        { type: "input_audio", input_audio: audio },
        { type: "text", text: this._question.value },
      ];
      const json = { model: this._model, messages: [{ role: "user", content }] };
      let answer = this._answer.value;
      if (!answer) {
        const { choices } = await requestJson("/v1/chat/completions", { json: { ...json, max_tokens: 128 } });
        answer = choices[0].message.content ?? "";
      }
      const { tokens } = await requestJson("/v1/inspector/tokens", { json: { ...json, answer } });
      this._draw(tokens);
    } catch (error) {
      this._tokens.replaceChildren(make("p", { class: "note", role: "alert" }, error.message));
    } finally {
      this._show.disabled = false;
    }
  }

  _draw(tokens) {
    const prompt = tokens.filter((one) => !one.is_answer);
    const answer = tokens.filter((one) => one.is_answer);
    const known = answer.filter((one) => one.probability !== null);
    const surprise = known.reduce((sum, one) => sum - Math.log2(Math.max(one.probability, 1e-12)), 0);
    this._tokens.replaceChildren(
      make("h4", {}, `Prompt, ${prompt.length} tokens`),
      make("div", { class: "run" }, ...prompt.map((one) => this._token(one))),
      make("h4", {}, `Answer, ${answer.length} tokens, ${(surprise / known.length).toFixed(2)} bits each`),
      make("div", { class: "run" }, ...answer.map((one) => this._token(one))),
    );
  }

  _token(token) {
    const chance = token.probability;
    return button(token.code === null ? visible(token.text) : String(token.code), () => this._tell(token), {
      class: token.code === null ? "token" : "token audio",
      style: chance === null ? "" : `--chance: ${chance.toFixed(3)}`,
      title: chance === null ? "the first token" : percent(chance),
      onmouseenter: () => this._tell(token),
      onfocus: () => this._tell(token),
    });
  }

  _tell({ text, token_id: id, probability, alternatives }) {
    this._detail.replaceChildren(
      make("div", {}, make("code", {}, visible(text)), ` (id ${id}): ${probability === null ? "the first" : percent(probability)}`),
      make(
        "ol",
        {},
        ...alternatives.map(([other, chance]) =>
          make(
            "li",
            {},
            make("code", {}, visible(other)),
            make("span", { class: "bar", style: `width: ${(100 * chance).toFixed(1)}px` }),
            percent(chance),
          ),
        ),
      ),
    );
  }
}

// Spaces and ends of lines as something that can be seen.
function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll(" ", "·") || "∅";
}

function percent(chance) {
  return chance >= 0.001 ? `${(100 * chance).toFixed(1)} %` : "below 0.1 %";
}

// The original beside the sound of its codes.
class Rebuilding {
  constructor(file, tokenizer, which) {
    this._file = file;
    this._which = which;
    this._result = make("div", { class: "pair" });
    if (!tokenizer.can_decode) {
      this.element = make("p", { class: "hint" }, "This tokenizer has no decoder, so its codes cannot become sound.");
      return;
    }
    this._button = button("Reconstruct", () => this._ask());
    this.element = make("div", {}, this._button, this._result);
  }

  async _ask() {
    this._button.disabled = true;
    this._result.replaceChildren(make("span", { class: "hint" }, "decoding …"));
    try {
      const form = { file: this._file, tokenizer: this._which };
      const made = await requestJson("/v1/inspector/reconstruction", { form });
      const distance = made.mel_distance === null ? "too short to be measured" : made.mel_distance.toFixed(3);
      this._result.replaceChildren(
        sideOf("A: the recording", made.original),
        sideOf("B: the sound of its codes", made.rebuilt),
        make(
          "p",
          { class: "measured" },
          `${made.num_codes} codes, ${Math.round(made.bits_per_second)} bit/s. Mel distance: ${distance} `,
          make("span", { class: "hint" }, "(0: equal; 0.69: a factor of two everywhere)"),
        ),
      );
    } catch (error) {
      this._result.replaceChildren(make("p", { class: "note", role: "alert" }, error.message));
    } finally {
      this._button.disabled = false;
    }
  }
}

function sideOf(title, { sound, mel }) {
  const picture = pictureOf(mel);
  picture.className = "mel";
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `Spectrogram of ${title}`);
  return make("figure", {}, make("figcaption", {}, title), picture, player(blobOfBase64(sound, "audio/wav"), title));
}

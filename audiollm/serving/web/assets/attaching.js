// A recording to be given: from a file, by dropping it, or from the microphone.

import { button, make, player } from "./dom.js";
import { Recorder } from "./sound.js";

export class Attaching {
  // onchange is called with the file, or null; onerror with what is wrong.
  constructor({ onchange, onerror }) {
    this.file = null;
    this._onchange = onchange;
    this._onerror = onerror;
    this._input = make("input", {
      type: "file",
      accept: "audio/*,.wav,.mp3,.flac,.ogg,.opus,.m4a,.webm",
      "aria-label": "Choose a recording",
      class: "hidden-input",
      onchange: () => this._input.files[0] && this.set(this._input.files[0]),
    });
    this._record = button("● Record", () => this._toggle(), { class: "record", "aria-pressed": "false" });
    this._chosen = make("div", { class: "chosen" });
    this.controls = [
      this._record,
      button("Upload …", () => this._input.click(), { class: "upload" }),
      this._input,
    ];
    this.chosen = this._chosen;
  }

  // Takes files that are dropped on an element.
  takeDrops(element) {
    element.addEventListener("dragover", (event) => event.preventDefault());
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.set(event.dataTransfer.files[0]);
    });
  }

  set(file) {
    this.file = file;
    this._input.value = "";
    this._chosen.replaceChildren();
    if (file) {
      this._chosen.append(
        make("span", { class: "name" }, file.name),
        player(file, `Listen to ${file.name}`),
        button("Remove", () => this.set(null), { "aria-label": "Remove the recording", class: "quiet" }),
      );
    }
    this._onchange(file);
  }

  async _toggle() {
    try {
      if (this._recorder) {
        const recorder = this._recorder;
        this._recorder = null;
        this._show(false);
        this.set(await recorder.stop());
      } else {
        const recorder = new Recorder();
        await recorder.start();
        this._recorder = recorder;
        this._show(true);
      }
    } catch (error) {
      this._onerror(error);
    }
  }

  _show(isRecording) {
    this._record.textContent = isRecording ? "■ Stop recording" : "● Record";
    this._record.setAttribute("aria-pressed", String(isRecording));
    this._record.classList.toggle("active", isRecording);
  }
}

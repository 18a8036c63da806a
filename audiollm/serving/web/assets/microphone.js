// Runs beside the page, where the samples of the microphone come: hands them on as 16-bit numbers, a tenth of a second
// at a time.

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this._held = new Int16Array(Math.round(sampleRate / 10));
    this._length = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this._held[this._length++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this._length === this._held.length) {
        this.port.postMessage(this._held.slice());
        this._length = 0;
      }
    }
    return true;
  }
}

registerProcessor("audiollm-microphone", Microphone);

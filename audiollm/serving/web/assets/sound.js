// Sound in and out, without any program on the server: PCM is played as it comes, recordings are WAV.

export const RATE = 24000; // of everything that the server sends

// Plays 16-bit samples, 24 kHz, one channel, piece after piece.
export class PcmPlayer {
  constructor() {
    this.samplesQueued = 0;
    this.samplesHeard = 0;
    this.pieces = [];
    this._sources = new Set();
    this._rest = new Uint8Array(0);
    this._next = 0;
  }

  // To be called while a click or a key press is handled: browsers let no page make sound before.
  open() {
    this._context ??= new AudioContext({ sampleRate: RATE });
    this._context.resume();
  }

  get context() {
    return this._context;
  }

  write(bytes) {
    const joined = new Uint8Array(this._rest.length + bytes.length);
    joined.set(this._rest);
    joined.set(bytes, this._rest.length);
    const length = joined.length - (joined.length % 2);
    this._rest = joined.slice(length);
    if (!length) return;
    const samples = new Int16Array(joined.buffer, 0, length / 2);
    this.pieces.push(samples);
    this._schedule(samples);
  }

  _schedule(samples) {
    const context = this._context;
    const buffer = context.createBuffer(1, samples.length, RATE);
    const channel = buffer.getChannelData(0);
    for (let index = 0; index < samples.length; index += 1) channel[index] = samples[index] / 32768;
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    // A little ahead at the start, and again where the server was slower than the sound.
    if (this._next < context.currentTime) this._next = context.currentTime + 0.15;
    source.start(this._next);
    this._next += buffer.duration;
    this.samplesQueued += samples.length;
    this._sources.add(source);
    source.onended = () => {
      this._sources.delete(source);
      if (!this._isStopped) this.samplesHeard += samples.length;
    };
  }

  stop() {
    this._isStopped = true;
    for (const source of this._sources) source.stop();
    this._sources.clear();
  }

  close() {
    this.stop();
    this._context?.close();
    this._context = undefined;
  }

  // All that came, as a file; null if nothing did.
  wav() {
    return this.samplesQueued ? wavOf(this.pieces, RATE) : null;
  }
}

export function wavOf(pieces, rate) {
  const numSamples = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (place, value) => [...value].forEach((c, index) => header.setUint8(place + index, c.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + 2 * numSamples, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, 2 * numSamples, true);
  return new Blob([header, ...pieces], { type: "audio/wav" });
}

// The microphone, as a WAV file.
export class Recorder {
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("browsers give the microphone only to pages on this machine or by https: upload a file instead");
    }
    try {
      this._stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      throw new Error(`the microphone cannot be used (${error.message}): allow it, or upload a file`);
    }
    this._context = new AudioContext();
    await this._context.audioWorklet.addModule("/page/microphone.js");
    this._pieces = [];
    const node = new AudioWorkletNode(this._context, "audiollm-microphone", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => this._pieces.push(data);
    this._context.createMediaStreamSource(this._stream).connect(node);
  }

  async stop() {
    const rate = this._context.sampleRate;
    for (const track of this._stream.getTracks()) track.stop();
    await this._context.close();
    if (!this._pieces.length) throw new Error("nothing was recorded: speak a little longer");
    return new File([wavOf(this._pieces, rate)], "recording.wav", { type: "audio/wav" });
  }
}

// A recording on one time axis: waveform, mel, codes, gate. The pointer or the arrow keys choose a code.

import { bytesOfBase64, make } from "./dom.js";

const ROWS = { wave: 64, mel: 110, codes: 36, gate: 64, axis: 20 };
const GAP = 8;
const PIXELS_PER_SECOND = 60;
const MOST_PIXELS = 30000; // wider canvases stay empty in some browsers

export class Timeline {
  // onselect is called with the index of a code, onenter when it is asked for by a key or a click.
  constructor({ onselect, onenter }) {
    this._onselect = onselect;
    this._canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": "Recording, codes and gate over time" });
    this._scroller = make("div", { class: "scroller" }, this._canvas);
    this._zoom = make("input", { type: "range", min: 1, max: 8, step: 0.5, value: 1, "aria-label": "Zoom" });
    this._zoom.addEventListener("input", () => this._draw());
    this.element = make(
      "div",
      { class: "timeline" },
      this._scroller,
      make("label", { class: "switch" }, "zoom ", this._zoom),
    );
    this._canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this._point(event));
    this._canvas.addEventListener("pointerdown", (event) => {
      this._point(event);
      onenter();
    });
    this._canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (step !== undefined) this.select(this.selected + step, true);
      else if (event.key === "Enter" || event.key === " ") onenter();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this._data && this._scroller.clientWidth !== this._drawnFor && this._draw()).observe(
      this._scroller,
    );
  }

  show(data) {
    this._data = data;
    this._melPicture = pictureOf(data.mel);
    this.selected = 0;
    this._draw();
    this.select(0);
  }

  select(index, isScrolled = false) {
    this.selected = Math.max(0, Math.min(this._data.codes.length - 1, index));
    this._draw();
    if (isScrolled) {
      const x = ((this.selected + 0.5) / this._data.frame_rate) * this._scale;
      const { clientWidth, scrollLeft } = this._scroller;
      if (x < scrollLeft || x > scrollLeft + clientWidth) this._scroller.scrollLeft = x - clientWidth / 2;
    }
    this._onselect(this.selected);
  }

  _point(event) {
    if (!this._data) return;
    const x = event.clientX - this._canvas.getBoundingClientRect().left;
    const index = Math.floor((x / this._scale) * this._data.frame_rate);
    if (index !== this.selected && index >= 0 && index < this._data.codes.length) this.select(index);
  }

  _draw() {
    const data = this._data;
    const room = this._scroller.clientWidth;
    if (!data || !room) return; // the tab is hidden: it is drawn when it is shown
    this._drawnFor = room;
    const hasGate = data.gate !== null;
    const width = Math.round(Math.max(room, data.shown_seconds * PIXELS_PER_SECOND) * Number(this._zoom.value));
    const rows = Object.entries(ROWS).filter(([name]) => name !== "gate" || hasGate);
    const height = rows.reduce((sum, [, size]) => sum + size + GAP, 0);
    const ratio = Math.min(window.devicePixelRatio || 1, MOST_PIXELS / width);
    Object.assign(this._canvas, { width: width * ratio, height: height * ratio });
    Object.assign(this._canvas.style, { width: `${width}px`, height: `${height}px` });
    this._scale = width / data.shown_seconds;
    const pen = this._canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const ink = getComputedStyle(this._canvas).color;
    let top = 0;
    for (const [name, size] of rows) {
      pen.save();
      pen.translate(0, top);
      this[`_${name}`](pen, width, size, ink);
      pen.restore();
      top += size + GAP;
    }
    const left = (this.selected / data.frame_rate) * this._scale;
    pen.strokeStyle = "#e8590c";
    pen.lineWidth = 1.5;
    pen.strokeRect(left, 0.5, this._scale / data.frame_rate, height - ROWS.axis - GAP);
  }

  _wave(pen, width, height, ink) {
    const [lowest, highest] = this._data.outline;
    const loudest = Math.max(...highest.map(Math.abs), ...lowest.map(Math.abs), 1e-3);
    const column = width / lowest.length;
    pen.fillStyle = ink;
    for (let index = 0; index < lowest.length; index += 1) {
      const top = (1 - highest[index] / loudest) * (height / 2);
      const bottom = (1 - lowest[index] / loudest) * (height / 2);
      pen.fillRect(index * column, top, Math.max(column, 0.6), Math.max(bottom - top, 1));
    }
  }

  _mel(pen, width, height) {
    pen.imageSmoothingEnabled = false;
    // The picture is a little longer than the recording: it has whole frames.
    const shown = Math.min(this._melPicture.width, this._data.shown_seconds * 100);
    pen.drawImage(this._melPicture, 0, 0, shown, this._melPicture.height, 0, 0, width, height);
  }

  _codes(pen, width, height) {
    const { codes, commonness, frame_rate: rate } = this._data;
    const step = this._scale / rate;
    codes.forEach((code, index) => {
      pen.fillStyle = colour(commonness[index]);
      pen.fillRect(index * step, 0, Math.max(step - (step > 3 ? 1 : 0), 0.5), height);
    });
    if (step < 30) return;
    pen.font = "11px ui-monospace, monospace";
    pen.textAlign = "center";
    codes.forEach((code, index) => {
      pen.fillStyle = commonness[index] > 0.6 ? "#000" : "#fff";
      pen.fillText(String(code), (index + 0.5) * step, height / 2 + 4);
    });
  }

  _gate(pen, width, height, ink) {
    const gate = this._data.gate;
    const step = this._scale / ((gate.length / this._data.codes.length) * this._data.frame_rate);
    pen.strokeStyle = ink;
    pen.globalAlpha = 0.25;
    for (const level of [0, 0.5, 1]) {
      pen.strokeRect(0, 1 + (1 - level) * (height - 2), width, 0);
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = "#1c7ed6";
    pen.lineWidth = 2;
    pen.beginPath();
    gate.forEach((value, index) => {
      const place = [(index + 0.5) * step, 1 + (1 - value) * (height - 2)];
      if (index) pen.lineTo(...place);
      else pen.moveTo(...place);
    });
    pen.stroke();
  }

  _axis(pen, width, height, ink) {
    const every = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((seconds) => seconds * this._scale > 45) ?? 10;
    pen.fillStyle = ink;
    pen.font = "11px system-ui, sans-serif";
    for (let tick = 0; tick * every <= this._data.shown_seconds; tick += 1) {
      const x = tick * every * this._scale;
      pen.fillRect(x, 0, 1, 4);
      pen.fillText(`${Number((tick * every).toFixed(1))} s`, x + 3, 14);
    }
  }
}

// A spectrogram as something that can be drawn: low frequencies below.
export function pictureOf({ rows, columns, bytes }) {
  const values = bytesOfBase64(bytes);
  const canvas = make("canvas", {});
  canvas.width = columns;
  canvas.height = rows;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const place = 4 * ((rows - 1 - row) * columns + column);
      image.data.set(heat(values[row * columns + column] / 255), place);
    }
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

// Black over purple and orange to light yellow.
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // prettier-ignore
// Dark blue over green to yellow: readable without telling red from green.
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // prettier-ignore

function heat(value) {
  return [...between(HEAT, value), 255];
}

export function colour(value) {
  return `rgb(${between(VIRIDIS, value).join(" ")})`;
}

function between(scale, value) {
  const place = Math.max(0, Math.min(0.9999, value)) * (scale.length - 1);
  const index = Math.floor(place);
  return scale[index].map((one, channel) => Math.round(one + (scale[index + 1][channel] - one) * (place - index)));
}

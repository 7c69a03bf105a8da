// One network's view of the picture: overlay, class under the pointer, legend.

import { confidenceColors, classColors, paint, sampled } from "./paint.js";
import { encode } from "./png.js";

const STEP = 0.02;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Panel {
  /**
   * @param model name, title and classes, as `page.json` has them.
   * @param change what is to be different in all panels goes here.
   */
  constructor(model, change) {
    this.model = model;
    this.change = change;
    this.root = document.getElementById("panel").content.cloneNode(true).firstElementChild;
    for (const name of ["stage", "cross", "time", "readout", "legend", "download"])
      this[name] = this.root.querySelector(`.${name}`);
    this.photo = this.root.querySelector("img");
    this.canvas = this.root.querySelector("canvas");
    this.root.querySelector("h2").textContent = model.title;
    this.stage.ariaLabel = `Picture segmented by ${model.title}; arrow keys move the pointer`;
    this.#listen();
  }

  /** Shows the picture itself; tells whether the browser can. */
  async begin(file, url) {
    this.result = null;
    this.file = file;
    this.root.ariaBusy = true;
    this.say("Working …");
    this.download.hidden = true;
    this.legend.replaceChildren();
    this.readout.replaceChildren();
    this.canvas.width = this.canvas.height = 1;
    this.cross.hidden = true;
    return this.#setPhoto(url);
  }

  say(text) {
    this.time.textContent = text;
  }

  /** Shows what the network said, see `page.js`. */
  async show(result, state) {
    if (result.photo) {
      const url = URL.createObjectURL(result.photo);
      await this.#setPhoto(url);
      URL.revokeObjectURL(url);
    }
    this.result = result;
    this.root.ariaBusy = false;
    this.download.hidden = false;
    const seconds = result.seconds < 10 ? result.seconds.toFixed(2) : result.seconds.toFixed(1);
    this.say([`${seconds} s`, `${result.width} × ${result.height}`, ...result.remarks].join(" · "));
    this.#makeLegend();
    this.update(state);
  }

  /** Paints anew what the state asks for. */
  update(state) {
    if (!this.result) return;
    const { view, highlight } = state;
    this.root.classList.toggle("highlighted", highlight !== null);
    for (const item of this.legend.querySelectorAll("button"))
      item.ariaPressed = item.dataset.name === highlight;
    const painted = `${view} ${highlight}`;
    if (this.result.painted !== painted) this.#paint(view, highlight);
    this.result.painted = painted;
    this.#point(state.point);
  }

  async #setPhoto(url) {
    this.photo.src = url;
    try {
      await this.photo.decode();
    } catch {
      this.photo.removeAttribute("src");
      return false;
    }
    const ratio = this.photo.naturalWidth / this.photo.naturalHeight;
    this.stage.style.setProperty("--ratio", ratio);
    return true;
  }

  #paint(view, highlight) {
    const { classes } = this.model;
    const { width, height, labels, confidence } = this.result;
    const [source, colors] = {
      classes: [labels, classColors(classes)],
      confidence: [confidence, confidenceColors()],
    }[view];
    const [small, ids] = [source, labels].map((map) => sampled(map, width, height));
    const shown = (id) => highlight === null || classes[id]?.name === highlight;
    const image = paint(small.bytes, ids.bytes, ids.width, ids.height, colors, shown);
    Object.assign(this.canvas, { width: ids.width, height: ids.height });
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  #point(point) {
    this.cross.hidden = !point;
    if (!point) return this.readout.replaceChildren("Point at the picture to read it");
    this.cross.style.left = `${100 * point.x}%`;
    this.cross.style.top = `${100 * point.y}%`;
    const { width, height, labels, confidence } = this.result;
    const pixel = Math.floor(point.y * height) * width + Math.floor(point.x * width);
    const found = this.model.classes[labels[pixel]];
    const name = Object.assign(document.createElement("strong"), { textContent: found.name });
    const sure = `${Math.round(confidence[pixel] / 2.55)} % sure`;
    this.readout.replaceChildren(swatch(found.color), name, sure);
  }

  #makeLegend() {
    const counts = new Array(this.model.classes.length).fill(0);
    for (const id of this.result.labels) counts[id]++;
    const rows = this.model.classes
      .map((found, id) => ({ ...found, share: counts[id] / this.result.labels.length }))
      .filter(({ share }) => share > 0)
      .sort((one, other) => other.share - one.share);
    this.legend.replaceChildren(...rows.map((row) => this.#makeRow(row)));
  }

  #makeRow({ name, color, share }) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", ariaPressed: false });
    button.dataset.name = name;
    const percent = share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
    button.append(swatch(color), span("name", name), span("share", percent), span("bar", ""));
    button.style.setProperty("--share", `${100 * share}%`);
    button.addEventListener("click", () =>
      this.change({ highlight: button.ariaPressed === "true" ? null : name }),
    );
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  #listen() {
    const follow = (event) => {
      const box = this.stage.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      this.#moveTo(x / box.width, y / box.height);
    };
    this.stage.addEventListener("pointermove", follow);
    this.stage.addEventListener("pointerdown", follow);
    this.stage.addEventListener("pointerleave", ({ pointerType }) => {
      if (pointerType === "mouse") this.change({ point: null });
    });
    this.stage.addEventListener("keydown", (event) => {
      const step = KEYS[event.key];
      if (!step) return;
      event.preventDefault();
      const { x, y } = this.at ?? { x: 0.5, y: 0.5 };
      this.#moveTo(x + STEP * step[0], y + STEP * step[1]);
    });
    this.download.addEventListener("click", () => this.#save());
  }

  #moveTo(x, y) {
    const inside = (value) => Math.min(Math.max(value, 0), 0.99999);
    this.at = { x: inside(x), y: inside(y) };
    this.change({ point: this.at });
  }

  async #save() {
    const { labels, width, height } = this.result;
    const palette = this.model.classes.map(({ color }) => color);
    const url = URL.createObjectURL(await encode(labels, width, height, palette));
    const name = `${this.file.name.replace(/\.[^.]*$/, "")}_mask.png`;
    Object.assign(document.createElement("a"), { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
}

function span(kind, text) {
  return Object.assign(document.createElement("span"), { className: kind, textContent: text });
}

function swatch(color) {
  const made = span("swatch", "");
  made.style.background = `rgb(${color.join(" ")})`;
  return made;
}

// One radiograph with its heatmaps: draws what the controls of its section say.

import { blendTable, greyOf, greyScale, paint, strokeBoxes, upsample } from "./heat.js";
import { drawOutlines } from "./outlines.js";
import { Zoom } from "./zoom.js";

const LEGEND_GREY = 96; // as in cxr/heatmaps/overlay.py

export class Viewer {
  /**
   * @param {HTMLElement} section holds the markup of one result
   * @param {object} answer what the model says, in the API's form
   * @param {{colours: number[][], opacity: number}} drawing
   */
  constructor(section, answer, drawing) {
    Object.assign(this, { section, answer, drawing, heats: new Map() });
    this.ranked = [...answer.findings].sort((one, other) => other.probability - one.probability); // stable
    this.tool = (name) => section.querySelector(`[data-tool="${name}"]`);
    this.radios = [...section.querySelectorAll("input.view")];
  }

  /** Wait for the radiograph, put canvases in the place of the pictures and take the tools into use. */
  async start() {
    const image = this.section.querySelector('.shot[data-rank="0"]');
    await image.decode();
    [this.width, this.height] = [image.naturalWidth, image.naturalHeight];
    this.grey = greyOf(image, this.width, this.height);
    this.#makeCanvases();
    this.#takeTools();
    this.section.querySelector(".adjust").open = matchMedia("(min-width: 60rem)").matches;
    this.section.querySelectorAll("[data-script]").forEach((part) => part.removeAttribute("hidden"));
    this.section.classList.add("scripted");
    this.#choose();
    this.draw();
  }

  /** The chosen finding; null for the radiograph alone. */
  get finding() {
    return this.ranked[this.rank - 1] ?? null;
  }

  get opacity() {
    return this.tool("heat").checked ? Number(this.tool("opacity").value) / 100 : 0;
  }

  /** The heat at the end of the colour scale: of all maps, or of this one where that is asked for. */
  get peak() {
    return this.tool("own").checked ? this.finding.peak : Math.max(...this.ranked.map((one) => one.peak));
  }

  draw() {
    const greys = greyScale({
      window: Number(this.tool("window").value),
      level: Number(this.tool("level").value),
      invert: this.tool("invert").checked,
    });
    const table = blendTable(this.drawing.colours, this.opacity, greys);
    const lines = { outlines: this.#isOn("outlines"), ratio: this.#isOn("ratio") };
    const drawn = `${greys} ${JSON.stringify(lines)}`;
    if (drawn !== this.drawnPlain) {
      paint(this.plain, this.grey, null, table);
      drawOutlines(this.plain, this.answer, lines);
    }
    this.drawnPlain = drawn;
    paint(this.overlay, this.grey, this.#heat(), table);
    drawOutlines(this.overlay, this.answer, lines);
    const boxed = this.tool("boxes").checked && Boolean(this.finding.boxes);
    this.section.classList.toggle("boxed", boxed);
    if (boxed) strokeBoxes(this.overlay, this.finding.boxes, this.width / this.answer.width);
    this.#drawLegend();
  }

  /** Whether a switch is there and on. */
  #isOn(name) {
    return this.tool(name)?.checked ?? false;
  }

  #heat() {
    const key = `${this.rank} ${this.peak}`;
    if (this.finding.heatmap && !this.heats.has(key)) {
      if (this.heats.size > 20) this.heats.clear(); // a byte per pixel each
      this.heats.set(key, upsample(this.finding.heatmap, this.peak, this.height, this.width));
    }
    return this.heats.get(key) ?? null;
  }

  #drawLegend() {
    const scale = Uint8Array.from({ length: 256 }, (_, heat) => heat);
    const grey = new Uint8Array(256).fill(LEGEND_GREY);
    const plain = greyScale({ window: 100, level: 50, invert: false });
    paint(this.legend, grey, scale, blendTable(this.drawing.colours, this.opacity, plain));
    const end = this.section.querySelector(".legend .end");
    const empty = !(this.peak > 0) || !(this.finding.peak > 0);
    end.parentElement.classList.toggle("empty", empty);
    const whose = this.tool("own").checked ? "this map's own peak" : "the largest peak of all findings";
    end.textContent = empty ? "no heat in this map" : `+${this.peak.toPrecision(2)} logit, ${whose}`;
  }

  #makeCanvases() {
    const panes = this.section.querySelector(".panes");
    [this.plain, this.overlay] = ["plain", "overlay"].map((name) => {
      const pane = document.createElement("div");
      pane.className = `pane ${name}`;
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: this.width, height: this.height });
      canvas.setAttribute("role", "img");
      pane.append(canvas);
      panes.append(pane);
      return canvas;
    });
    this.plain.setAttribute("aria-label", "The radiograph");
    const drawn = this.section.querySelector(".legend img");
    this.legend = document.createElement("canvas");
    Object.assign(this.legend, { width: 256, height: 1 });
    this.legend.setAttribute("aria-hidden", "true");
    drawn.replaceWith(this.legend);
  }

  #takeTools() {
    const stage = this.section.querySelector(".stage");
    Object.assign(stage, { tabIndex: 0 });
    stage.setAttribute("role", "group");
    stage.setAttribute("aria-label", "Radiograph. Plus and minus zoom, arrow keys move, 0 fits.");
    const factor = stage.querySelector(".zooming output");
    this.zoom = new Zoom(stage, [...stage.querySelectorAll(".pane")], (zoomed) => {
      factor.textContent = `${Math.round(100 * zoomed)} %`;
    });
    const actions = { in: () => this.zoom.step(1), out: () => this.zoom.step(-1), reset: () => this.zoom.reset() };
    stage.querySelectorAll("[data-zoom]").forEach((button) => {
      button.addEventListener("click", actions[button.dataset.zoom]);
    });
    this.radios.forEach((radio) => radio.addEventListener("change", () => this.#choose() || this.draw()));
    this.section.querySelectorAll('input[name^="layout"]').forEach((radio) => {
      radio.addEventListener("change", () => this.section.classList.toggle("beside", radio.value === "beside"));
    });
    this.section.querySelectorAll("[data-tool]").forEach((tool) => {
      tool.addEventListener("input", () => this.#say(tool) || this.draw());
    });
    this.tool("reset").addEventListener("click", () => this.#reset());
  }

  #reset() {
    for (const name of ["window", "level", "opacity"]) {
      const tool = this.tool(name);
      tool.value = tool.defaultValue;
      this.#say(tool);
    }
    this.tool("invert").checked = false;
    this.zoom.reset();
    this.draw();
  }

  #say(tool) {
    if (tool.type === "range") tool.parentElement.querySelector("output").textContent = `${tool.value} %`;
  }

  /** Take over which finding is chosen; the first time all of them become choices. */
  #choose() {
    if (!this.rank) {
      this.radios.forEach((radio) => (radio.disabled = radio.value === "0"));
      const chosen = this.radios.find((radio) => radio.checked && radio.value !== "0");
      (chosen ?? this.radios.find((radio) => radio.value === "1")).checked = true;
    }
    this.rank = Number(this.radios.find((radio) => radio.checked).value);
    const readings = [...this.section.querySelectorAll(".reading")];
    readings.forEach((reading) => reading.classList.toggle("chosen", Number(reading.dataset.rank) === this.rank));
    const name = this.finding.name.replaceAll("_", " ");
    this.overlay.setAttribute(
      "aria-label",
      this.finding.peak > 0
        ? `The radiograph with a heatmap of where the model found evidence for ${name}`
        : `The radiograph; no positive evidence for ${name}`,
    );
  }
}

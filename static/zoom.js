// Zoom and pan of the panes of one stage, all in step: buttons, wheel, keyboard, mouse, one finger and two.

const MAX_ZOOM = 8;
const STEP = 1.25;
const PAN_STEP = 0.1; // of the pane's side, per press of an arrow key
const DRAG_START = 4; // pixels; less than that is a click

export class Zoom {
  /**
   * @param {HTMLElement} stage gets the focus and the keys
   * @param {HTMLElement[]} panes each clips the layer in it
   * @param {(factor: number) => void} report is told the zoom factor
   */
  constructor(stage, panes, report) {
    Object.assign(this, { stage, panes, report, factor: 1, x: 0, y: 0, fingers: new Map(), moved: false });
    panes.forEach((pane) => this.#listen(pane));
    stage.addEventListener("keydown", (event) => this.#key(event));
  }

  reset() {
    Object.assign(this, { factor: 1, x: 0, y: 0 });
    this.#apply();
  }

  /** Zoom by a ratio and keep the place (x, y), in shares of a pane from its centre, where it is. */
  by(ratio, x = 0, y = 0) {
    const factor = Math.min(MAX_ZOOM, Math.max(1, this.factor * ratio));
    const change = factor / this.factor;
    this.x = x + (this.x - x) * change;
    this.y = y + (this.y - y) * change;
    this.factor = factor;
    this.#apply();
  }

  step(direction) {
    this.by(direction > 0 ? STEP : 1 / STEP);
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.#apply();
  }

  #apply() {
    const limit = (this.factor - 1) / 2; // no farther than the picture's edge
    this.x = Math.min(limit, Math.max(-limit, this.x));
    this.y = Math.min(limit, Math.max(-limit, this.y));
    for (const pane of this.panes) {
      pane.firstElementChild.style.transform =
        `translate(${100 * this.x}%, ${100 * this.y}%) scale(${this.factor})`;
    }
    this.stage.classList.toggle("zoomed", this.factor > 1);
    this.report(this.factor);
  }

  #listen(pane) {
    pane.addEventListener("wheel", (event) => this.#wheel(event, pane), { passive: false });
    pane.addEventListener("pointerdown", (event) => this.#down(event, pane));
    pane.addEventListener("pointermove", (event) => this.#move(event, pane));
    for (const end of ["pointerup", "pointercancel"]) {
      pane.addEventListener(end, (event) => this.#up(event, pane, end === "pointerup"));
    }
    pane.addEventListener("dblclick", (event) => this.by(this.factor < MAX_ZOOM ? 2 : 1 / MAX_ZOOM, ...place(event, pane)));
  }

  /** The wheel scrolls the page until the stage has the focus, so that nobody gets stuck on the picture. */
  #wheel(event, pane) {
    const wanted = event.ctrlKey || event.metaKey || this.stage.contains(document.activeElement);
    if (!wanted || (event.deltaY > 0 && this.factor === 1)) return;
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event, pane));
  }

  #key(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "+": () => this.step(1),
      "=": () => this.step(1),
      "-": () => this.step(-1),
      0: () => this.reset(),
      ArrowLeft: () => this.pan(PAN_STEP, 0),
      ArrowRight: () => this.pan(-PAN_STEP, 0),
      ArrowUp: () => this.pan(0, PAN_STEP),
      ArrowDown: () => this.pan(0, -PAN_STEP),
    };
    const action = actions[event.key];
    if (!action || (event.key.startsWith("Arrow") && this.factor === 1)) return;
    event.preventDefault();
    action();
  }

  #down(event, pane) {
    this.stage.focus({ preventScroll: true });
    if (event.button > 0) return;
    this.fingers.set(event.pointerId, place(event, pane));
    this.moved = this.fingers.size > 1;
    this.start = [event.clientX, event.clientY];
  }

  #move(event, pane) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = place(event, pane);
    const other = [...this.fingers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    if (!this.moved && Math.hypot(event.clientX - this.start[0], event.clientY - this.start[1]) < DRAG_START) return;
    if (!this.moved) pane.setPointerCapture(event.pointerId);
    this.moved = true;
    this.fingers.set(event.pointerId, now);
    if (other) {
      const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
      this.by(distance(now, other) / Math.max(0.01, distance(before, other)), ...middle);
      this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    } else {
      this.pan(now[0] - before[0], now[1] - before[1]);
    }
  }

  /** A click without a drag brings the place to the centre: panning without dragging. */
  #up(event, pane, released) {
    const known = this.fingers.delete(event.pointerId);
    if (!known || !released || this.moved || this.factor === 1) return;
    const [x, y] = place(event, pane);
    this.pan(-x, -y);
  }
}

/** Where a pointer is: x and y in shares of the pane, from its centre. */
function place(event, pane) {
  const box = pane.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
}

function distance([ax, ay], [bx, by]) {
  return Math.hypot(ax - bx, ay - by);
}

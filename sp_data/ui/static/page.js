// What the buttons inside the page's HTML do; see markup.py.
"use strict";

function field(id) {
  return document.querySelector(`#${CSS.escape(id)} textarea, #${CSS.escape(id)} input`);
}

function put(id, value) {
  const element = field(id);
  if (!element) return null;
  const prototype = element instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(prototype.prototype, "value").set.call(element, value);
  element.dispatchEvent(new Event("input", { bubbles: true }));
  element.dispatchEvent(new Event("change", { bubbles: true }));
  return element;
}

let numPicks = 0;

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("[data-fill], [data-pick]");
  if (!button) return;
  if (button.dataset.pick) {
    // Numbered: twice the same picture is two events.
    put("sp-picked", `${++numPicks} ${button.dataset.pick}`);
    window.scrollTo({ top: 0 });
    return;
  }
  const fields = Object.entries(JSON.parse(button.dataset.fill));
  const elements = fields.map(([id, value]) => put(id, value));
  elements[0]?.focus();
});

// On a phone the pictures stand below the settings.
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("[id$='-draw'], [id$='-search']");
  const results = button && document.getElementById(button.id.replace(/-\w+$/, "-results"));
  if (results && results.getBoundingClientRect().top > window.innerHeight - 200) {
    results.scrollIntoView({ block: "start" });
  }
});

// The preview of a small upload is enlarged, its pixels as squares.
const SMALL_PX = 128;
document.addEventListener(
  "load",
  (event) => {
    const image = event.target;
    if (!(image instanceof HTMLImageElement) || !image.closest(".sp-upload")) return;
    image.classList.toggle("sp-small-upload", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL_PX);
  },
  true,
);

// The painter of masks (pictures.painter). What is white on its canvas is drawn anew.
const painters = new WeakMap();
const MAX_UNDO = 20;

class Painter {
  constructor(root) {
    this.canvas = root.querySelector("canvas");
    this.brush = root.querySelector(".sp-brush");
    this.size = root.querySelector("input[type=range]");
    this.eraser = root.querySelector("[data-paint=erase]");
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.at = { x: this.canvas.width / 2, y: this.canvas.height / 2 };
    this.isDown = false;
    this.past = [];
    this.eraser.setAttribute("aria-pressed", "false");
    this.brush.hidden = true;
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.send();
  }

  get width() {
    return Number(this.size.value);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) * this.canvas.width) / box.width,
      y: ((event.clientY - box.top) * this.canvas.height) / box.height,
    };
  }

  begin(point) {
    this.past.push(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.past.length > MAX_UNDO) this.past.shift();
    this.isDown = true;
    this.at = point;
    this.stroke(point);
  }

  stroke(point) {
    const erases = this.eraser.getAttribute("aria-pressed") === "true";
    this.pen.globalCompositeOperation = erases ? "destination-out" : "source-over";
    this.pen.lineWidth = this.width;
    this.pen.lineCap = this.pen.lineJoin = "round";
    this.pen.strokeStyle = "#fff";
    this.pen.beginPath();
    this.pen.moveTo(this.at.x, this.at.y);
    this.pen.lineTo(point.x, point.y);
    this.pen.stroke();
    this.at = point;
  }

  end() {
    if (!this.isDown) return;
    this.isDown = false;
    this.send();
  }

  // Shown where the keyboard has it.
  showBrush() {
    const scale = this.canvas.getBoundingClientRect().width / this.canvas.width;
    this.brush.hidden = false;
    Object.assign(this.brush.style, {
      left: `${this.at.x * scale}px`,
      top: `${this.at.y * scale}px`,
      width: `${this.width * scale}px`,
      height: `${this.width * scale}px`,
    });
  }

  move(dx, dy) {
    const step = Math.max(2, this.width / 4);
    const point = {
      x: Math.min(Math.max(this.at.x + dx * step, 0), this.canvas.width),
      y: Math.min(Math.max(this.at.y + dy * step, 0), this.canvas.height),
    };
    if (this.isDown) this.stroke(point);
    this.at = point;
    this.showBrush();
  }

  undo() {
    const before = this.past.pop();
    if (before) this.pen.putImageData(before, 0, 0);
    this.send();
  }

  clear() {
    this.past.push(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height));
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.send();
  }

  send() {
    put("inpaint-painted", this.canvas.toDataURL("image/png"));
  }
}

// Gradio changes the HTML in place: another picture has another key.
function painterOf(element) {
  const root = element instanceof Element && element.closest(".sp-painter");
  if (!root) return null;
  const known = painters.get(root);
  if (known && known.key === root.dataset.key) return known.painter;
  const painter = new Painter(root);
  painters.set(root, { key: root.dataset.key, painter });
  return painter;
}

new MutationObserver(() => document.querySelectorAll(".sp-painter").forEach(painterOf)).observe(document, {
  subtree: true,
  childList: true,
  attributes: true,
  attributeFilter: ["data-key"],
});

document.addEventListener("pointerdown", (event) => {
  const painter = event.target instanceof HTMLCanvasElement && event.button === 0 && painterOf(event.target);
  if (!painter) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  event.target.focus({ preventScroll: true });
  painter.brush.hidden = true;
  painter.begin(painter.place(event));
});
document.addEventListener("pointermove", (event) => {
  const painter = event.target instanceof HTMLCanvasElement && painterOf(event.target);
  if (painter?.isDown) (event.getCoalescedEvents?.() ?? [event]).forEach((one) => painter.stroke(painter.place(one)));
});
for (const name of ["pointerup", "pointercancel"]) {
  document.addEventListener(name, (event) => {
    if (event.target instanceof HTMLCanvasElement) painterOf(event.target)?.end();
  });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener("keydown", (event) => {
  const painter = event.target instanceof HTMLCanvasElement && painterOf(event.target);
  if (!painter) return;
  if (event.key in ARROWS) painter.move(...ARROWS[event.key]);
  else if (event.key === " ") painter.isDown ? painter.end() : painter.begin(painter.at);
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) painter.undo();
  else return;
  event.preventDefault();
  painter.showBrush();
});

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("[data-paint]");
  const painter = button && painterOf(button);
  if (!painter) return;
  const does = button.dataset.paint;
  if (does === "erase") button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
  else painter[does]();
});

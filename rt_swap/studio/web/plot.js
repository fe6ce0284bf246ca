// Added delay over the last half minute, stage upon stage.

const SECONDS = 30;

export class Plot {
  #canvas;
  #points = [];
  #colours = new Map();

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => { this.#colours.clear(); this.draw(); });
    this.draw();
  }

  colour(name) {
    if (!this.#colours.has(name)) {
      this.#colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    }
    return this.#colours.get(name);
  }

  clear() {
    this.#points = [];
    this.draw();
  }

  add(delay) {
    const now = performance.now() / 1000;
    this.#points.push({ at: now, stages: delay.stages, total: delay.total });
    while (this.#points.length && this.#points[0].at < now - SECONDS) this.#points.shift();
    this.draw();
  }

  draw() {
    const canvas = this.#canvas;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const highest = Math.max(60, ...this.#points.map((point) => point.total)) * 1.12;
    const step = [20, 25, 50, 100, 200, 250, 500, 1000, 2500].find((ms) => highest / ms <= 4.2) || 5000;
    const y = (ms) => height - 1 - (ms / highest) * (height - 8);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "bottom";
    for (let ms = 0; ms < highest; ms += step) {
      context.fillStyle = this.colour("--line");
      context.fillRect(0, Math.round(y(ms)), width, 1);
      if (ms > 0) {
        context.fillStyle = this.colour("--soft");
        context.fillText(`${ms} ms`, 2, y(ms) - 1);
      }
    }
    if (this.#points.length < 2) return;
    const now = this.#points[this.#points.length - 1].at;
    const x = (point) => width - ((now - point.at) / SECONDS) * width;
    let below = this.#points.map(() => 0);
    for (let k = 0; k < this.#points[0].stages.length; k += 1) {
      const above = this.#points.map((point, i) => below[i] + point.stages[k][1]);
      context.beginPath();
      this.#points.forEach((point, i) => context.lineTo(x(point), y(above[i])));
      for (let i = this.#points.length - 1; i >= 0; i -= 1) context.lineTo(x(this.#points[i]), y(below[i]));
      context.closePath();
      context.globalAlpha = 0.82;
      context.fillStyle = this.colour(this.#points[0].stages[k][2]);
      context.fill();
      context.globalAlpha = 1;
      below = above;
    }
    context.beginPath();
    this.#points.forEach((point, i) => context.lineTo(x(point), y(below[i])));
    context.strokeStyle = this.colour("--text");
    context.lineWidth = 1.5;
    context.stroke();
  }
}

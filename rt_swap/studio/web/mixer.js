// Sliders: all, each region, and, unfolded, each unit of a region with what it does now.
import { icon, make } from "./dom.js";

const percent = (gain) => `${Math.round(gain * 100)} %`;

export class Mixer extends EventTarget {
  #rows = new Map();
  #levels = new Map();
  #controls = null;

  constructor(root, state) {
    super();
    this.max = state.max_gain;
    root.append(this.#row("all", "All", (gain) => this.#send({ overall: gain }), "all"));
    for (const region of state.regions) {
      const units = state.aus.filter((au) => au.region === region);
      const row = this.#row(region, region, (gain) => this.#send({ regions: { [region]: gain } }));
      const box = make("div", { className: "units", id: `units-${region}`, hidden: true });
      const fold = make("button", { type: "button", className: "fold", "aria-expanded": "false", "aria-controls": box.id, "aria-label": `Units of the ${region}`, title: `${units.length} units` }, icon("M9 5l7 7-7 7"));
      fold.addEventListener("click", () => {
        box.hidden = !box.hidden;
        fold.setAttribute("aria-expanded", String(!box.hidden));
      });
      row.append(fold);
      box.append(make("p", { className: "levels" }, make("span", {}, make("u"), "you"), make("span", {}, make("i"), "shown")));
      for (const au of units) box.append(this.#unit(au));
      root.append(row, box);
    }
  }

  #send(changes) {
    this.dispatchEvent(new CustomEvent("change", { detail: changes }));
  }

  #slider(id, text, onInput) {
    const input = make("input", { type: "range", id, min: "0", max: String(this.max), step: "0.05", value: "1" });
    input.addEventListener("input", () => { this.#paint(id, Number(input.value)); onInput(Number(input.value)); });
    input.addEventListener("dblclick", () => { this.#paint(id, 1); onInput(1); });
    const output = make("output", { htmlFor: id });
    this.#rows.set(id, { input, output, text });
    return { input, output };
  }

  #paint(id, gain) {
    const { input, output } = this.#rows.get(id);
    if (Number(input.value) !== gain) input.value = String(gain);
    input.style.setProperty("--fill", `${(100 * gain) / this.max}%`);
    input.setAttribute("aria-valuetext", percent(gain));
    output.textContent = percent(gain);
  }

  #row(name, text, onInput, extra = "") {
    const id = `gain-${name}`;
    const { input, output } = this.#slider(id, text, onInput);
    return make("div", { className: `slider ${extra}` }, make("label", { htmlFor: id, textContent: text }), input, output);
  }

  #unit(au) {
    const id = `gain-${au.id}`;
    const { input, output } = this.#slider(id, au.name, (gain) => this.#send({ aus: { [au.id]: gain } }));
    const own = make("u");
    const shown = make("i");
    this.#levels.set(au.id, { own, shown });
    const unset = make("button", { type: "button", className: "unset", textContent: "↺", title: "Follow the region again", "aria-label": `${au.name}: follow the region again` });
    unset.addEventListener("click", () => this.#send({ aus: { [au.id]: null } }));
    const row = make("div", { className: "unit" },
      make("label", { htmlFor: id }, make("b", { textContent: au.id }), au.name),
      make("span", { className: "track" }, input, make("span", { className: "level", "aria-hidden": "true" }, shown, own)),
      output, unset);
    this.#rows.get(id).row = row;
    this.#rows.get(id).unset = unset;
    this.#rows.get(id).au = au;
    return row;
  }

  show(controls) {
    this.#controls = controls;
    this.#paint("gain-all", controls.overall);
    for (const [region, gain] of Object.entries(controls.regions)) this.#paint(`gain-${region}`, gain);
    for (const [id, { au, row, unset }] of this.#rows) {
      if (!au) continue;
      const set = au.id in controls.aus;
      this.#paint(id, set ? controls.aus[au.id] : controls.regions[au.region]);
      row.classList.toggle("follows", !set);
      unset.hidden = !set;
    }
  }

  levels(own, shown) {
    for (const [id, level] of this.#levels) {
      level.own.style.left = `${100 * (own ? own[id] : 0)}%`;
      level.own.hidden = !own;
      level.shown.style.width = `${100 * (shown ? shown[id] : 0)}%`;
    }
  }
}

// The expressions to choose from.
import * as api from "./api.js";
import { icon, make, toast } from "./dom.js";

const FACE = "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9 9.5v1.5M15 9.5v1.5M9 15.2h6";
const PLUS = "M12 5v14M5 12h14";

const progress = (busy) => busy.sent < 1 ? `${Math.round(100 * busy.sent)} %` : "reading…";

export class Gallery extends EventTarget {
  #root;
  #input;
  #entries = [];
  #busy = [];
  #chosen = "own";

  constructor(root, input) {
    super();
    this.#root = root;
    this.#input = input;
    input.addEventListener("change", () => { this.add([...input.files]); input.value = ""; });
  }

  get entries() { return this.#entries; }
  get(id) { return this.#entries.find((entry) => entry.id === id); }

  // 0 is the person's own expression, 1 to 9 the first nine.
  byKey(digit) {
    if (digit === 0) return "own";
    const entry = this.#entries[digit - 1];
    return entry ? entry.id : null;
  }

  show(entries, chosen) {
    const same = JSON.stringify([entries, chosen]) === JSON.stringify([this.#entries, this.#chosen]);
    this.#entries = entries;
    this.#chosen = chosen;
    if (!same || !this.#root.children.length) this.#draw();
  }

  choose(chosen) {
    this.#chosen = chosen;
    for (const button of this.#root.querySelectorAll("button.choose[data-id]")) {
      button.setAttribute("aria-pressed", String(button.dataset.id === chosen));
    }
  }

  #draw() {
    const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.focus : null;
    const cards = [this.#card({ id: "own", name: "Your own", kind: "own" }, 0)];
    this.#entries.forEach((entry, i) => cards.push(this.#card(entry, i < 9 ? i + 1 : null)));
    for (const busy of this.#busy) cards.push(this.#working(busy));
    cards.push(this.#adder());
    this.#root.replaceChildren(...cards);
    if (focused) {
      const again = this.#root.querySelector(`button[data-focus="${CSS.escape(focused)}"]`);
      if (again) again.focus({ preventScroll: true });
    }
  }

  #card(entry, key) {
    const face = make("span", { className: "face" });
    if (entry.thumbnail !== null && entry.thumbnail !== undefined) {
      face.append(make("img", { src: api.thumbnail(entry.id, entry.thumbnail), alt: "", draggable: false }));
    } else if (entry.kind === "own") {
      face.append(icon(FACE));
    } else {
      face.append(make("span", { className: "word", textContent: (entry.strongest || []).map((s) => s.replace(/^AU\d+ /, "")).slice(0, 2).join(", ") || entry.name }));
    }
    const name = make("span", { className: "name" }, make("span", { textContent: entry.name }));
    if (key !== null) name.append(make("kbd", { textContent: String(key) }));
    const button = make("button", { type: "button", className: "choose", title: entry.strongest ? `${entry.name}: ${entry.strongest.join(", ")}` : "No other expression", "aria-pressed": String(entry.id === this.#chosen) }, face, name);
    button.dataset.id = entry.id;
    button.dataset.focus = `choose ${entry.id}`;
    button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("choose", { detail: entry.id })));
    const card = make("div", { className: "card" }, button);
    if (entry.kind === "clip") card.append(make("span", { className: "badge", textContent: `${entry.duration_s.toFixed(1)} s` }));
    if (entry.kind === "clip" || entry.kind === "picture") {
      const remove = make("button", { type: "button", className: "remove", textContent: "×", "aria-label": `Remove ${entry.name}` });
      remove.dataset.focus = `remove ${entry.id}`;
      remove.addEventListener("click", () => this.dispatchEvent(new CustomEvent("remove", { detail: entry.id })));
      card.append(remove);
    }
    return card;
  }

  #working(busy) {
    busy.word = make("span", { className: "word", textContent: progress(busy) });
    const face = make("span", { className: "face" }, busy.word);
    const button = make("button", { type: "button", className: "choose", disabled: true }, face, make("span", { className: "name" }, make("span", { textContent: busy.name })));
    return make("div", { className: "card busy" }, button);
  }

  #adder() {
    const button = make("button", { type: "button", className: "choose", title: "Add a picture or a clip of a face" }, make("span", { className: "face" }, icon(PLUS)), make("span", { className: "name" }, make("span", { textContent: "Add…" })));
    button.dataset.focus = "add";
    button.addEventListener("click", () => this.#input.click());
    return make("div", { className: "card add" }, button);
  }

  async add(files) {
    for (const file of files) await this.#addOne(file);
  }

  async #addOne(file) {
    const busy = { name: file.name, sent: 0 };
    this.#busy.push(busy);
    this.#draw();
    try {
      const entry = await api.addExpression(file, (sent) => { busy.sent = sent; busy.word.textContent = progress(busy); });
      this.#busy = this.#busy.filter((other) => other !== busy);
      this.#entries = [...this.#entries, entry];
      this.#draw();
      this.dispatchEvent(new CustomEvent("choose", { detail: entry.id }));
    } catch (error) {
      this.#busy = this.#busy.filter((other) => other !== busy);
      this.#draw();
      toast(error.message, { bad: true });
    }
  }
}

// Whole videos: hand in, watch, fetch.
import * as api from "./api.js";
import { $, make, toast } from "./dom.js";

const clock = (seconds) => {
  const s = Math.max(Math.round(seconds), 0);
  return s >= 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s} s`;
};

export class Jobs {
  #list = $("jobs");
  #rows = new Map();
  #sending = [];
  #timer = 0;

  constructor() {
    const input = $("file-input");
    $("file-choose").addEventListener("click", () => input.click());
    input.addEventListener("change", () => { this.add([...input.files]); input.value = ""; });
  }

  async add(files) {
    $("file-error").hidden = true;
    for (const file of files) {
      const sending = { id: `sending-${performance.now()}`, name: file.name, state: "sending", done: 0, total: 1, message: "", expression: "" };
      this.#sending.push(sending);
      this.#drawAll(null);
      try {
        await api.addJob(file, $("timing-pick").value, (sent) => { sending.done = sent; this.#draw(sending); });
      } catch (error) {
        $("file-error").textContent = error.message;
        $("file-error").hidden = false;
      }
      this.#sending = this.#sending.filter((other) => other !== sending);
      await this.refresh();
    }
  }

  show(jobs) {
    this.#drawAll(jobs);
    clearTimeout(this.#timer);
    if (jobs.some((job) => job.state === "running" || job.state === "waiting")) {
      this.#timer = setTimeout(() => this.refresh(), 400);
    }
  }

  async refresh() {
    try {
      this.show(await api.jobs());
    } catch (error) {
      toast(error.message, { bad: true });
    }
  }

  #drawAll(jobs) {
    const all = [...(jobs || []), ...this.#sending];
    if (jobs !== null) {
      for (const [id, row] of this.#rows) {
        if (!all.some((job) => job.id === id)) { row.element.remove(); this.#rows.delete(id); }
      }
    }
    all.forEach((job) => this.#draw(job));
    const open = all.filter((job) => ["running", "waiting", "sending"].includes(job.state)).length;
    $("jobs-count").hidden = open === 0;
    $("jobs-count").textContent = String(open);
  }

  #draw(job) {
    let row = this.#rows.get(job.id);
    if (!row) {
      const title = make("b", { textContent: job.name });
      const text = make("small");
      const actions = make("div", { className: "actions" });
      const bar = make("progress", { max: 1, "aria-label": `Progress of ${job.name}` });
      const element = make("li", { className: "job" }, make("div", {}, title, text), actions, bar);
      row = { element, text, actions, bar, state: "" };
      this.#rows.set(job.id, row);
      this.#list.prepend(element);
    }
    row.text.textContent = this.#textOf(job);
    row.text.className = job.state === "failed" ? "bad" : "";
    if (job.state === "waiting" || (job.state === "running" && !job.total)) row.bar.removeAttribute("value");
    else row.bar.value = job.total ? Math.min(job.done / job.total, 1) : 0;
    row.bar.hidden = !["running", "waiting", "sending"].includes(job.state);
    if (row.state !== job.state) {
      row.state = job.state;
      row.element.dataset.state = job.state;
      this.#actions(row, job);
    }
  }

  #textOf(job) {
    const what = job.expression ? `${job.expression} · ` : "";
    if (job.state === "sending") return `being handed over · ${Math.round(100 * job.done)} %`;
    if (job.state === "waiting") return `${what}waits for its turn`;
    if (job.state === "running") {
      const of = job.total ? ` of ${job.total}` : "";
      const left = job.left_s !== null ? ` · ${clock(job.left_s)} left` : "";
      return `${what}${job.done}${of} frames${left}`;
    }
    if (job.state === "done") return `${what}${job.done} frames in ${clock(job.elapsed_s)}${job.message ? ` · ${job.message}` : ""}`;
    return job.message || job.state;
  }

  #actions(row, job) {
    row.actions.replaceChildren();
    const old = row.element.querySelector("video");
    if (old) old.remove();
    if (job.state === "sending") return;
    if (job.state === "done") {
      row.actions.append(make("a", { className: "primary", href: `${api.result(job.id)}?download=true`, download: job.download, textContent: "Download" }));
      row.element.append(make("video", { src: api.result(job.id), controls: true, playsInline: true, preload: "metadata" }));
    }
    const ended = job.state !== "running" && job.state !== "waiting";
    const remove = make("button", { type: "button", className: "quiet", textContent: ended ? "Remove" : "Cancel", "aria-label": `${ended ? "Remove" : "Cancel"} ${job.name}` });
    remove.addEventListener("click", async () => {
      try { await api.removeJob(job.id); } catch (error) { toast(error.message, { bad: true }); }
      this.refresh();
    });
    row.actions.append(remove);
  }
}

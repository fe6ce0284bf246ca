// Puts the page together: state comes from the server, every change goes there.
import * as api from "./api.js";
import { $, make, save, stamp, toast } from "./dom.js";
import { Gallery } from "./gallery.js";
import { Jobs } from "./jobs.js";
import { Live } from "./live.js";
import { Mixer } from "./mixer.js";
import { Plot } from "./plot.js";

const MODE_NOTES = {
  absolute: "Your face takes the whole expression.",
  relative: "The expression is added to your own movements. Calibrate for the best result.",
};
const NEUTRAL_NOTES = {
  "": "Your resting face is not known yet. Look at the camera, rest your face and calibrate.",
  found: "Your resting face was found by itself; calibrating makes it exact.",
  stored: "Your resting face is known from last time.",
  calibrated: "Your resting face is calibrated.",
};

let state = null;
let controls = null;
let mixer = null;
let recorder = null;
let lastStats = null;
const live = new Live($("own"), $("result"));
const gallery = new Gallery($("cards"), $("expression-input"));
const jobs = new Jobs();
const plot = new Plot($("plot"));

// --- controls: sent at most every 40 ms, later changes joined, in order ---
let pending = null;
let sending = false;
function change(changes) {
  pending = join(pending, changes);
  if (!sending) flush();
}
function join(old, changes) {
  if (!old) return changes;
  const merged = { ...old, ...changes };
  for (const name of ["regions", "aus"]) {
    if (old[name] || changes[name]) merged[name] = { ...old[name], ...changes[name] };
  }
  return merged;
}
async function flush() {
  sending = true;
  while (pending) {
    const changes = pending;
    pending = null;
    try {
      const answer = await api.setControls(changes);
      if (!pending) showControls(answer);
    } catch (error) {
      toast(error.message, { bad: true });
      pending = null;
      await refresh();
    }
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  sending = false;
}

function showControls(values) {
  controls = values;
  gallery.choose(values.chosen);
  mixer.show(values);
  for (const radio of document.querySelectorAll('input[name="mode"]')) radio.checked = radio.value === values.mode;
  $("mode-note").textContent = MODE_NOTES[values.mode];
  $("keep-speech").checked = values.keep_speech;
  $("keep-blink").checked = values.keep_blink;
  $("on-lost").value = values.on_lost;
  $("output-pick").value = values.virtual_camera ? "camera" : "page";
  const entry = gallery.get(values.chosen);
  $("result-caption").textContent = entry ? entry.name : "Your own";
  $("timing").hidden = !entry || entry.kind !== "clip";
  $("file-gives").textContent = entry ? `It will be given: ${entry.name}, with the strengths as set.` : "Choose an expression below first.";
}

function choose(id) {
  gallery.choose(id);
  change({ chosen: id });
}

// --- state ---
async function refresh() {
  try {
    state = await api.state();
  } catch (error) {
    gone(error.message);
    return;
  }
  $("gone").hidden = true;
  if (!mixer) {
    mixer = new Mixer($("mixer"), state);
    mixer.addEventListener("change", (event) => change(event.detail));
    $("about").textContent = `rt_swap ${state.version} · drop at most ${state.limits.expression_mib} MiB as an expression, ${state.limits.video_mib} MiB as a video · what you drop is removed when rt-swap studio ends.`;
  }
  gallery.show(state.gallery, state.controls.chosen);
  showControls(state.controls);
  showOutput(state.output);
  jobs.show(state.jobs);
  if (state.gallery.some((entry) => entry.kind === "preset" && entry.thumbnail === null)) setTimeout(thumbnails, 700);
}

let asked = 0;
async function thumbnails() {
  asked += 1;
  try {
    const fresh = await api.state();
    gallery.show(fresh.gallery, controls.chosen);
    const missing = fresh.gallery.some((entry) => entry.kind === "preset" && entry.thumbnail === null);
    if (missing && (asked < 40 || live.running)) setTimeout(thumbnails, asked < 40 ? 700 : 5000);
  } catch { /* the next request will tell */ }
}

// The virtual camera opened, closed or failed since the page last asked.
let outputTold = "";
async function outputNow(stats) {
  const now = `${stats.output_device}|${stats.output_error}`;
  if (now === outputTold) return;
  const failed = stats.output_error && !outputTold.endsWith(`|${stats.output_error}`);
  outputTold = now;
  if (failed) toast(`The virtual camera does not work: ${stats.output_error}`, { bad: true });
  try { showOutput((await api.state()).output); } catch { /* told elsewhere */ }
}

function showOutput(output) {
  const option = $("output-pick").options[1];
  option.disabled = !output.available;
  option.textContent = output.device ? `Page and ${output.device}` : "Page and virtual camera";
  const text = output.error || output.reason;
  $("output-note").hidden = !text;
  $("output-note").classList.toggle("bad", Boolean(output.error));
  $("output-note").open = Boolean(output.error);
  $("output-summary").textContent = output.error ? "The virtual camera does not work" : "No virtual camera yet: how to get one";
  $("output-reason").textContent = text ? text.charAt(0).toUpperCase() + text.slice(1) : "";
}

function gone(text) {
  $("gone").textContent = `${text}. Start it again in the terminal and open the address it prints.`;
  $("gone").hidden = false;
}

// --- the stage ---
const COVERS = {
  idle: { title: "See yourself with another expression", text: "Your camera’s picture is worked on by this computer. Nothing leaves it.", button: "Turn the camera on" },
  asking: { title: "May this page use your camera?", text: "Your browser is asking. Its picture stays on this computer.", spinner: true },
  connecting: { title: "Connecting…", text: "", spinner: true },
  loading: { title: "Getting ready…", text: "The model is being loaded. This takes a moment.", spinner: true },
};

live.addEventListener("phase", ({ detail }) => {
  const cover = detail.phase === "problem" ? { ...detail, button: "Try again" } : COVERS[detail.phase];
  $("live").dataset.phase = detail.phase;
  $("cover").hidden = detail.phase === "live";
  if (cover) {
    $("cover-title").textContent = cover.title;
    $("cover-text").textContent = cover.text || "";
    $("cover-steps").replaceChildren(...(cover.steps || []).map((text) => make("li", { textContent: text })));
    $("cover-steps").hidden = !cover.steps;
    $("cover-button").hidden = !cover.button;
    if (cover.button) $("cover-button").firstChild.textContent = `${cover.button} `;
    $("cover-spinner").hidden = !cover.spinner;
  }
  const on = detail.phase === "live";
  $("camera-label").textContent = on || live.busy ? "Turn camera off" : "Turn camera on";
  for (const id of ["calibrate", "snapshot", "record"]) $(id).disabled = !on;
  $("readout").hidden = !on;
  if (!on) {
    stopRecording();
    $("hint").hidden = $("countdown").hidden = true;
    $("readout-delay").textContent = $("readout-fps").textContent = "–";
    $("delay").firstChild.textContent = "–";
    plot.clear();
    $("stages").replaceChildren();
    $("rates").textContent = "Turn the camera on to see where the time goes.";
    if (mixer) mixer.levels(null, null);
    lastStats = null;
  } else {
    fillCameras();
    if (state.gallery.some((entry) => entry.thumbnail === null)) setTimeout(thumbnails, 1500);
  }
});

live.addEventListener("stats", ({ detail: { stats, delay } }) => {
  if (!live.running) return;
  if (delay) {
    const total = Math.round(delay.total);
    $("readout-delay").textContent = $("delay").firstChild.textContent = String(total);
    $("readout-fps").textContent = Math.round(stats.fps);
    plot.add(delay);
    const rows = $("stages");
    delay.stages.forEach(([name, ms, colour], i) => {
      let row = rows.children[i];
      if (!row) {
        const dot = make("i");
        dot.style.background = `var(${colour})`;
        row = make("tr", {}, make("th", {}, dot, name), make("td"));
        rows.append(row);
      }
      row.lastChild.textContent = `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms`;
    });
    const lost = stats.offered ? Math.round((100 * stats.dropped) / stats.offered) : 0;
    $("rates").textContent = `${stats.size[0]} × ${stats.size[1]} at ${stats.fps.toFixed(0)} frames a second${lost ? `; ${lost} % were skipped for newer ones` : ""}. Camera and screen add their own.`;
  }
  mixer.levels(stats.own, stats.shown);
  outputNow(stats);
  $("result").parentElement.classList.toggle("slate", Boolean(stats.slate));
  $("hint").hidden = stats.face !== false;
  if (stats.face === false) $("hint").textContent = "No face seen: come closer, or into the light";
  const left = stats.calibrating_left_s || 0;
  $("countdown").hidden = left <= 0;
  if (left > 0) $("countdown-left").textContent = String(Math.ceil(left));
  if (lastStats && stats.calibrations > lastStats.calibrations) {
    const good = stats.calibration_message === "calibrated";
    toast(good ? "Calibrated: this is your resting face now" : stats.calibration_message, { bad: !good });
  }
  if (!lastStats || lastStats.neutral_origin !== stats.neutral_origin) {
    $("neutral-note").textContent = NEUTRAL_NOTES[stats.neutral_origin] || "";
  }
  lastStats = stats;
});

function sizeWanted() {
  const [width, height] = $("size-pick").value.split("x").map(Number);
  return { deviceId: $("camera-pick").value, width, height };
}
function startCamera() {
  showTab("live");
  return live.start(sizeWanted());
}
function toggleCamera() {
  if (live.running || live.busy) live.stop();
  else startCamera();
}
async function fillCameras() {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  const pick = $("camera-pick");
  const chosen = pick.value;
  pick.replaceChildren(make("option", { value: "", textContent: "Default" }), ...cameras.map((camera, i) => make("option", { value: camera.deviceId, textContent: camera.label || `Camera ${i + 1}` })));
  pick.value = cameras.some((camera) => camera.deviceId === chosen) ? chosen : "";
  pick.disabled = false;
}
$("own").addEventListener("resize", () => {
  const { videoWidth, videoHeight } = $("own");
  if (videoWidth) $("panes").style.setProperty("--ratio", `${videoWidth} / ${videoHeight}`);
});

// --- keeping pictures ---
function snapshot() {
  if (!live.running) return;
  const video = $("result");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { save(blob, `rt_swap ${stamp()}.png`); toast("Snapshot saved"); }, "image/png");
}
const KINDS = ["video/webm;codecs=vp8", "video/webm", "video/mp4"];
function toggleRecording() {
  if (recorder) stopRecording();
  else startRecording();
}
function startRecording() {
  const mimeType = window.MediaRecorder ? KINDS.find((kind) => MediaRecorder.isTypeSupported(kind)) : null;
  if (!live.running || !mimeType) {
    if (live.running) toast("This browser cannot record", { bad: true });
    return;
  }
  const parts = [];
  const current = new MediaRecorder(live.stream, { mimeType, videoBitsPerSecond: 6_000_000 });
  const started = performance.now();
  current.ondataavailable = (event) => { if (event.data.size) parts.push(event.data); };
  current.onstop = () => {
    clearInterval(timer);
    if (recorder === current) recorder = null;
    $("rec").hidden = true;
    $("record").setAttribute("aria-pressed", "false");
    $("record-label").textContent = "Record";
    if (parts.length) save(new Blob(parts, { type: mimeType }), `rt_swap ${stamp()}.${mimeType.includes("mp4") ? "mp4" : "webm"}`);
  };
  const timer = setInterval(() => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    $("rec-time").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }, 250);
  current.start(1000);
  recorder = current;
  $("rec-time").textContent = "0:00";
  $("rec").hidden = false;
  $("record").setAttribute("aria-pressed", "true");
  $("record-label").textContent = "Stop recording";
}
function stopRecording() {
  if (recorder && recorder.state !== "inactive") recorder.stop();
  recorder = null;
}
async function calibrate() {
  if (!live.running) return;
  try {
    await api.calibrate(2);
  } catch (error) {
    toast(error.message, { bad: true });
  }
}
function mirror(on) {
  $("panes").classList.toggle("mirrored", on);
  $("mirror").setAttribute("aria-pressed", String(on));
}

// --- tabs ---
function showTab(name) {
  document.body.dataset.tab = name;
  for (const each of ["live", "file"]) {
    const on = each === name;
    $(each).hidden = !on;
    $(`tab-${each}`).setAttribute("aria-selected", String(on));
    $(`tab-${each}`).tabIndex = on ? 0 : -1;
  }
}
for (const [name, other] of [["live", "file"], ["file", "live"]]) {
  $(`tab-${name}`).addEventListener("click", () => showTab(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") { showTab(other); $(`tab-${other}`).focus(); event.preventDefault(); }
  });
}

// --- dropping ---
let depth = 0;
const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
function overlay(on) { $("drop").hidden = !on; if (!on) depth = 0; }
addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; overlay(true); event.preventDefault(); } });
addEventListener("dragleave", (event) => { if (hasFiles(event)) { depth -= 1; if (depth <= 0) overlay(false); } });
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  for (const half of document.querySelectorAll(".drop-half")) half.classList.toggle("over", half === event.target.closest(".drop-half"));
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  const half = event.target.closest(".drop-half");
  const files = [...event.dataTransfer.files];
  overlay(false);
  if (half && half.dataset.drop === "video") { showTab("file"); jobs.add(files); }
  else gallery.add(files);
});

// --- keys ---
const KEYS = [
  ["0", "your own expression", null],
  ["1 – 9", "the first nine expressions", null],
  ["C", "camera on or off", toggleCamera],
  ["N", "calibrate: measure your resting face", calibrate],
  ["S", "snapshot", snapshot],
  ["R", "record, and stop", toggleRecording],
  ["M", "mirror", () => mirror($("mirror").getAttribute("aria-pressed") !== "true")],
  ["K", "keep my speech", () => change({ keep_speech: !controls.keep_speech })],
  ["B", "keep my blinks", () => change({ keep_blink: !controls.keep_blink })],
  ["[", "weaker", () => strength(-0.1)],
  ["]", "stronger", () => strength(0.1)],
  ["V", "live, or a video file", () => showTab($("live").hidden ? "live" : "file")],
  ["?", "this list", () => $("help").showModal()],
];
function strength(step) {
  const overall = Math.min(Math.max(Math.round((controls.overall + step) * 20) / 20, 0), state.max_gain);
  mixer.show({ ...controls, overall });
  controls = { ...controls, overall };
  change({ overall });
}
for (const [key, text] of KEYS) $("keys").append(make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: text }));
addEventListener("keydown", (event) => {
  if (!controls || !$("keys-on").checked || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if ($("help").open || event.target.closest("input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea, dialog, video[controls]")) return;
  if (/^[0-9]$/.test(event.key)) {
    const id = gallery.byKey(Number(event.key));
    if (id) { choose(id); event.preventDefault(); }
    return;
  }
  const found = KEYS.find(([key]) => key === event.key.toUpperCase());
  if (found && found[2]) { found[2](); event.preventDefault(); }
});

// --- wiring ---
$("cover-button").addEventListener("click", startCamera);
$("camera").addEventListener("click", toggleCamera);
$("calibrate").addEventListener("click", calibrate);
$("snapshot").addEventListener("click", snapshot);
$("record").addEventListener("click", toggleRecording);
$("mirror").addEventListener("click", () => mirror($("mirror").getAttribute("aria-pressed") !== "true"));
$("help-open").addEventListener("click", () => $("help").showModal());
$("reset").addEventListener("click", () => change({ reset: true }));
for (const radio of document.querySelectorAll('input[name="mode"]')) radio.addEventListener("change", () => change({ mode: radio.value }));
$("keep-speech").addEventListener("change", (event) => change({ keep_speech: event.target.checked }));
$("keep-blink").addEventListener("change", (event) => change({ keep_blink: event.target.checked }));
$("on-lost").addEventListener("change", (event) => change({ on_lost: event.target.value }));
$("output-pick").addEventListener("change", async (event) => {
  change({ virtual_camera: event.target.value === "camera" });
  setTimeout(async () => { try { showOutput((await api.state()).output); } catch { /* told elsewhere */ } }, 1500);
});
for (const id of ["camera-pick", "size-pick"]) $(id).addEventListener("change", () => { if (live.running || live.busy) startCamera(); });
gallery.addEventListener("choose", (event) => choose(event.detail));
gallery.addEventListener("remove", async (event) => {
  try { await api.removeExpression(event.detail); } catch (error) { toast(error.message, { bad: true }); }
  refresh();
});
addEventListener("pagehide", () => { if (live.running || live.busy) api.leave(); });
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
$("neutral-note").textContent = NEUTRAL_NOTES[""];
mirror(true);
showTab("live");
refresh();

// The camera, the connection to the server and what both say about time.
import * as api from "./api.js";

const PROBLEMS = {
  NotAllowedError: {
    title: "The camera is blocked for this page",
    text: "Your browser or system did not give permission.",
    steps: [
      "Click the symbol to the left of the address and allow the camera.",
      "On macOS and Windows also look into the system’s privacy settings for the camera.",
      "Then try again.",
    ],
  },
  NotFoundError: {
    title: "No camera was found",
    text: "Plug one in, or switch it on, and try again. Whole videos work without one.",
  },
  NotReadableError: {
    title: "The camera is in use",
    text: "Another program holds it. Close that one’s video and try again.",
  },
  OverconstrainedError: {
    title: "The camera cannot do that size",
    text: "Choose another size below and try again.",
  },
};

export class Live extends EventTarget {
  #pc = null;
  #camera = null;
  #channel = null;
  #timer = 0;
  #before = null;
  #rtt = [];
  #browser = { send: 0, show: 0 };
  #generation = 0;

  constructor(own, result) {
    super();
    this.own = own;
    this.result = result;
    this.phase = "idle";
    this.delay = null;
  }

  #say(phase, detail = {}) {
    this.phase = phase;
    this.dispatchEvent(new CustomEvent("phase", { detail: { phase, ...detail } }));
  }

  get running() { return this.phase === "live"; }
  get busy() { return ["asking", "connecting", "loading"].includes(this.phase); }
  get stream() { return this.result.srcObject; }

  async start({ deviceId, width, height }) {
    await this.stop({ quiet: true });
    const generation = ++this.#generation;
    const current = () => generation === this.#generation;
    if (!navigator.mediaDevices) {
      this.#say("problem", { title: "This browser gives no camera to this page", text: "Open the address that starts with http://127.0.0.1 in a current Chrome, Edge, Firefox or Safari." });
      return;
    }
    this.#say("asking");
    let camera;
    try {
      camera = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: {
          deviceId: deviceId ? { exact: deviceId } : undefined,
          width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30, max: 30 },
        },
      });
    } catch (error) {
      if (current()) this.#say("problem", PROBLEMS[error.name] || { title: "The camera could not be started", text: error.message });
      return;
    }
    if (!current()) { camera.getTracks().forEach((track) => track.stop()); return; }
    this.#camera = camera;
    this.own.srcObject = camera;
    const track = camera.getVideoTracks()[0];
    track.contentHint = "motion";
    track.addEventListener("ended", () => { if (current()) this.#fail({ title: "The camera went away", text: "Plug it in again, or choose another, and turn it on." }); });
    this.#say("connecting");
    try {
      await this.#connect(track, camera, current);
    } catch (error) {
      if (current()) this.#fail({ title: "The connection could not be made", text: error.message });
    }
  }

  async #connect(track, camera, current) {
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.#pc = pc;
    const sender = pc.addTrack(track, camera);
    const channel = pc.createDataChannel("studio");
    this.#channel = channel;
    channel.addEventListener("message", (event) => { if (current()) this.#hear(JSON.parse(event.data)); });
    pc.addEventListener("track", (event) => {
      // show each picture as soon as it is there
      try { event.receiver.jitterBufferTarget = 0; } catch { /* older browsers */ }
      if ("playoutDelayHint" in event.receiver) event.receiver.playoutDelayHint = 0;
      this.result.srcObject = event.streams[0] || new MediaStream([event.track]);
    });
    pc.addEventListener("connectionstatechange", () => {
      if (!current()) return;
      if (pc.connectionState === "connected") this.#say("loading");
      if (pc.connectionState === "failed") this.#fail({ title: "The connection was lost", text: "Turn the camera on again. If it keeps failing, a firewall may block this computer from talking to itself." });
    });
    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc);
    const answer = await api.offer(pc.localDescription.sdp);
    if (!current()) return;
    await pc.setRemoteDescription({ type: "answer", sdp: atOnce(answer.sdp) });
    const parameters = sender.getParameters();
    parameters.degradationPreference = "maintain-resolution";
    for (const encoding of parameters.encodings || []) encoding.maxBitrate = 8_000_000;
    await sender.setParameters(parameters).catch(() => {});
    this.#timer = setInterval(() => this.#measure(), 500);
  }

  #hear(message) {
    if (message.pong) {
      this.#rtt.push(performance.now() - Number(message.pong));
      if (this.#rtt.length > 5) this.#rtt.shift();
    } else if ("bye" in message) {
      if (message.bye) this.#fail({ title: "The live picture was ended", text: sentence(message.bye) });
      else this.stop();
    } else if (message.stats) {
      const stats = message.stats;
      if (this.phase === "loading" && stats.phase === "live" && stats.age_ms !== null) this.#say("live");
      this.delay = this.#delayOf(stats);
      this.dispatchEvent(new CustomEvent("stats", { detail: { stats, delay: this.delay } }));
    }
  }

  // What is added between the camera's picture and its re-expressed one, in milliseconds by stage.
  #delayOf(stats) {
    if (stats.age_ms === null) return null;
    const rtt = this.#rtt.length ? Math.min(...this.#rtt) : 0;
    const server = stats.stage_ms;
    const known = ["receive", "track", "crop", "generate", "compose", "send"];
    const wait = Math.max(stats.age_ms - known.reduce((sum, name) => sum + (server[name] || 0), 0), 0);
    const stages = [
      ["Browser sends", this.#browser.send, "--s1"],
      ["On the way", rtt, "--s8"],
      ["Waits, converts", wait + (server.receive || 0), "--s2"],
      ["Finds the face", (server.track || 0) + (server.crop || 0), "--s3"],
      ["Network", server.generate || 0, "--s4"],
      ["Composes", server.compose || 0, "--s5"],
      ["Encodes", server.send || 0, "--s6"],
      ["Browser shows", this.#browser.show, "--s7"],
    ];
    return { stages, total: stages.reduce((sum, stage) => sum + stage[1], 0) };
  }

  async #measure() {
    if (this.#channel && this.#channel.readyState === "open") this.#channel.send(String(performance.now()));
    if (!this.#pc) return;
    const now = {};
    for (const report of (await this.#pc.getStats()).values()) {
      if (report.type === "outbound-rtp" && report.kind === "video") now.out = report;
      if (report.type === "inbound-rtp" && report.kind === "video") now.in = report;
    }
    const before = this.#before;
    this.#before = now;
    if (!before || !before.out || !now.out || !before.in || !now.in) return;
    const per = (side, sum, count) => {
      const n = (now[side][count] || 0) - (before[side][count] || 0);
      return n > 0 ? (1000 * ((now[side][sum] || 0) - (before[side][sum] || 0))) / n : null;
    };
    const encode = per("out", "totalEncodeTime", "framesEncoded");
    const pace = per("out", "totalPacketSendDelay", "packetsSent");
    const buffer = per("in", "jitterBufferDelay", "jitterBufferEmittedCount");
    const decode = per("in", "totalDecodeTime", "framesDecoded");
    const blend = (old, value) => (value === null ? old : old ? 0.6 * old + 0.4 * value : value);
    if (encode !== null) this.#browser.send = blend(this.#browser.send, encode + (pace || 0));
    if (buffer !== null || decode !== null) this.#browser.show = blend(this.#browser.show, (buffer || 0) + (decode || 0));
  }

  #fail(detail) {
    this.#release();
    this.#say("problem", detail);
  }

  async stop({ quiet = false } = {}) {
    const had = this.#pc !== null;
    this.#generation += 1;
    this.#release();
    if (!quiet) this.#say("idle");
    if (had) await api.stop().catch(() => {});
  }

  #release() {
    clearInterval(this.#timer);
    if (this.#pc) this.#pc.close();
    if (this.#camera) this.#camera.getTracks().forEach((track) => track.stop());
    this.#pc = this.#channel = this.#camera = this.#before = null;
    this.#rtt = [];
    this.#browser = { send: 0, show: 0 };
    this.own.srcObject = null;
    this.result.srcObject = null;
    this.delay = null;
  }
}

function gathered(pc) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => { clearTimeout(timer); resolve(); };
    const timer = setTimeout(done, 1500); // the server's own candidates are enough
    pc.addEventListener("icegatheringstatechange", () => { if (pc.iceGatheringState === "complete") done(); });
  });
}

// Chrome begins at 300 kbit/s and feels its way up; on one machine there is no need.
function atOnce(sdp) {
  return sdp.replace(/^a=rtpmap:(\d+) (VP8|H264)\/90000\r\n/gm, (line, type) => {
    const parameters = "x-google-start-bitrate=4000;x-google-min-bitrate=1500";
    return new RegExp(`^a=fmtp:${type} `, "m").test(sdp) ? line : `${line}a=fmtp:${type} ${parameters}\r\n`;
  });
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// Every request to the server. Addresses are relative: the page's own path holds the key.

export class Refused extends Error {}

async function ask(method, path, options = {}) {
  let response;
  try {
    response = await fetch(path, { method, cache: "no-store", ...options });
  } catch {
    throw new Refused("rt-swap studio does not answer any more");
  }
  const isJson = (response.headers.get("content-type") || "").startsWith("application/json");
  const values = isJson ? await response.json() : null;
  if (!response.ok) {
    throw new Refused((values && values.error) || `the server answered ${response.status}`);
  }
  return values;
}

const json = (method, path, body) =>
  ask(method, path, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });

export const state = () => ask("GET", "api/state");
export const setControls = (changes) => json("PATCH", "api/controls", changes);
export const offer = (sdp) => json("POST", "api/offer", { sdp });
export const stop = () => json("POST", "api/stop", {});
export const calibrate = (seconds) => json("POST", "api/calibrate", { seconds });
export const removeExpression = (id) => ask("DELETE", `api/expressions/${encodeURIComponent(id)}`);
export const jobs = () => ask("GET", "api/jobs");
export const removeJob = (id) => ask("DELETE", `api/jobs/${encodeURIComponent(id)}`);
export const thumbnail = (id, version) =>
  `api/expressions/${encodeURIComponent(id)}/thumbnail?v=${version}`;
export const result = (id) => `api/jobs/${encodeURIComponent(id)}/result`;
export const leave = () => navigator.sendBeacon("api/stop", new Blob(["{}"], { type: "application/json" }));

// Uploads go by XMLHttpRequest: fetch does not tell how far it is.
function upload(path, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    request.setRequestHeader("x-file-name", encodeURIComponent(file.name));
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable && onProgress) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(request.response);
      else reject(new Refused((request.response && request.response.error) || `the server answered ${request.status}`));
    };
    request.onerror = () => reject(new Refused(`${file.name}: could not be sent; is rt-swap studio still running?`));
    request.send(file);
  });
}

export const addExpression = (file, onProgress) => upload("api/expressions", file, onProgress);
export const addJob = (file, timing, onProgress) =>
  upload(`api/jobs?timing=${encodeURIComponent(timing)}`, file, onProgress);

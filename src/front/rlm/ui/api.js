// SPDX-License-Identifier: Apache-2.0
// The service. A key goes as a header and is kept by this tab alone; event streams are read by hand for its sake.

const STORE = "rlm-key";
const RETRY_FIRST = 500;
const RETRY_MAX = 10000;

export class Refusal extends Error {
  constructor(status, body) {
    super(body?.error || body?.detail || `The service answers ${status}.`);
    this.status = status;
    this.code = body?.code ?? "";
    this.remediation = body?.remediation ?? "";
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORE) ?? "",
  set: (value) => (value ? sessionStorage.setItem(STORE, value) : sessionStorage.removeItem(STORE)),
};

function headers(more = {}) {
  return key.get() ? { Authorization: `Bearer ${key.get()}`, ...more } : more;
}

async function refuse(answer) {
  let body = null;
  try {
    body = await answer.json();
  } catch {
    // a proxy's page
  }
  throw new Refusal(answer.status, body);
}

export async function get(path) {
  const answer = await fetch(path, { headers: headers(), cache: "no-store" });
  if (!answer.ok) await refuse(answer);
  return answer;
}

export const getJson = async (path) => (await get(path)).json();

export async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body ?? {}),
  });
  if (!answer.ok) await refuse(answer);
  return answer.json();
}

// fetch() does not tell how far a body has gone.
export function upload(data, type, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/contexts");
    request.setRequestHeader("Content-Type", type);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new Error("The service cannot be reached."));
    request.onload = () => {
      let body = null;
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // a proxy's page
      }
      if (request.status >= 200 && request.status < 300 && body) resolve(body);
      else reject(new Refusal(request.status, body));
    };
    request.send(data);
  });
}

// Events of a stream (WHATWG HTML, "Server-sent events").
export class EventReader {
  #rest = "";
  #data = [];
  #id = "";

  // Takes any piece of text; the events that it ends.
  feed(text) {
    const events = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0) events.push({ id: this.#id, data: this.#data.join("\n") });
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (name === "data") this.#data.push(value);
      else if (name === "id") this.#id = value;
    }
    return events;
  }
}

const pause = (time, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, time);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

// Follows a run from its first event to its last, over lost connections. `take(event)` returns true at the last one.
export async function follow(id, take, state, signal) {
  let last = 0;
  let wait = RETRY_FIRST;
  for (;;) {
    try {
      const answer = await fetch(`/runs/${encodeURIComponent(id)}/events`, {
        headers: headers(last ? { "Last-Event-ID": String(last) } : {}),
        cache: "no-store",
        signal,
      });
      if (!answer.ok) await refuse(answer);
      state("live");
      const reader = new EventReader();
      const body = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let done, value; ({ done, value } = await body.read()), !done;) {
        for (const event of reader.feed(value)) {
          wait = RETRY_FIRST;
          const number = Number(event.id) || last + 1;
          if (number <= last) continue;
          const lost = number - last - 1;
          last = number;
          if (take(JSON.parse(event.data), lost)) {
            body.cancel().catch(() => {});
            state("ended");
            return;
          }
        }
      }
      const run = await getJson(`/runs/${encodeURIComponent(id)}`);
      if (run.status !== "running") {
        state("ended");
        return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && error.status < 500 && error.status !== 429) {
        state("refused", error);
        return;
      }
    }
    if (signal.aborted) return;
    state("lost");
    await pause(wait, signal);
    wait = Math.min(wait * 2, RETRY_MAX);
    if (signal.aborted) return;
  }
}

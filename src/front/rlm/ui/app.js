// SPDX-License-Identifier: Apache-2.0
// The page: the list of runs, and beside it a form, a run of the service, or a trajectory file from disk. What is shown stands behind
// the "#" of the address: "#/new", "#/run/ID", "#/file".
import { ago, h, seconds } from "./dom.js";
import { Refusal, follow, get, getJson, key, post } from "./api.js";
import { readTrajectory, Run } from "./model.js";
import { RunForm } from "./form.js";
import { RunView } from "./runview.js";

const LIST_MS = { busy: 1000, quiet: 3000 };
const DRAW_MS = 120;
const THEMES = ["system", "light", "dark"];

const byId = (id) => document.getElementById(id);
const main = byId("main");
const state = { runs: [], sign: "", view: null, following: null, file: null, form: null, again: null };

// ---- the key

function askKey() {
  const dialog = byId("key-dialog");
  byId("key-button").hidden = false;
  if (dialog.open) return;
  byId("key").value = "";
  dialog.showModal();
}

function problem(error) {
  if (error instanceof Refusal && error.status === 401) askKey();
}

function setUpKey() {
  byId("key-button").hidden = !key.get();
  byId("key-button").addEventListener("click", askKey);
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("key-form").addEventListener("submit", () => {
    key.set(byId("key").value.trim());
    state.sign = "";
    renew();
    route();
  });
}

// ---- the list of runs

function item(run) {
  const current = location.hash === `#/run/${run.run_id}`;
  const time =
    run.status === "running" ? Math.max((Date.now() - Date.parse(run.created_at)) / 1000, 0) : run.execution_time;
  const facts = [
    run.model,
    Number.isFinite(run.iterations) ? `${run.iterations} turn${run.iterations === 1 ? "" : "s"}` : "",
    Number.isFinite(time) ? seconds(time) : "",
    ago(Date.parse(run.created_at)),
  ];
  return h(
    "li",
    {},
    h(
      "a",
      {
        href: `#/run/${encodeURIComponent(run.run_id)}`,
        "aria-current": current ? "page" : null,
        dataset: { run: run.run_id },
      },
      h("span", { class: `dot ${run.status}`, role: "img", "aria-label": String(run.status) }),
      h("span", { class: "run-query" }, String(run.query || "(no query)").slice(0, 300)),
      h("span", { class: "run-facts" }, facts.filter(Boolean).join(" · ")),
    ),
  );
}

function drawRuns() {
  const sign = JSON.stringify([
    state.runs,
    location.hash,
    Math.floor(Date.now() / (state.runs.some((run) => run.status === "running") ? 1000 : 30000)),
  ]);
  if (sign === state.sign) return;
  state.sign = sign;
  const focused = document.activeElement?.dataset?.run;
  byId("runs").replaceChildren(
    ...(state.runs.length ? state.runs.map(item) : [h("li", { class: "muted none" }, "No runs yet.")]),
  );
  if (focused)
    [...byId("runs").querySelectorAll("a")]
      .find((link) => link.dataset.run === focused)
      ?.focus({ preventScroll: true });
}

function connection(text, bad = false) {
  const element = byId("connection");
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("bad", bad);
}

async function renew() {
  try {
    state.runs = (await getJson("/runs")).runs ?? [];
    connection("");
    drawRuns();
  } catch (error) {
    connection(error instanceof Refusal ? error.message : "The service cannot be reached.", true);
    problem(error);
  }
}

async function forever() {
  if (!document.hidden && !byId("key-dialog").open) await renew();
  setTimeout(forever, state.runs.some((run) => run.status === "running") ? LIST_MS.busy : LIST_MS.quiet);
}

// ---- a run

// Drawing is put off until several events have come: a run may send thousands.
function draws(view) {
  let planned = false;
  return () => {
    if (planned || state.view !== view) return;
    planned = true;
    setTimeout(() => {
      planned = false;
      if (state.view === view) view.update();
    }, DRAW_MS);
  };
}

async function refresh(view) {
  view.info = await getJson(`/runs/${encodeURIComponent(view.run.id)}`);
}

// Of a run whose events are gone, the trajectory may still be there.
async function fromTrajectory(view) {
  const told = await (await get(`/runs/${encodeURIComponent(view.run.id)}/trajectory`)).text();
  const run = readTrajectory(told, view.run.id);
  run.fromFile = false;
  run.lost = 0;
  run.root.result = null;
  view.run = run;
}

function actionsOf(id, view) {
  return {
    cancel: async () => {
      try {
        await post(`/runs/${encodeURIComponent(id)}/cancel`);
      } catch (error) {
        view().problem = error.message;
        view().update();
      }
    },
    again: () => {
      state.again = view().info;
      location.hash = "#/new";
    },
    download: async () => {
      const blob = await (await get(`/runs/${encodeURIComponent(id)}/trajectory`)).blob();
      const link = h("a", { href: URL.createObjectURL(blob), download: `${id}.jsonl` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    },
  };
}

async function showRun(id) {
  const run = new Run(id);
  const view = new RunView(
    run,
    actionsOf(id, () => view),
  );
  const draw = draws(view);
  const stop = new AbortController();
  const tick = setInterval(() => (view.running && !document.hidden ? draw() : null), 1000);
  stop.signal.addEventListener("abort", () => clearInterval(tick));
  show(view.element, view, stop);
  try {
    await refresh(view);
  } catch (error) {
    view.problem = error.message;
    view.info = { status: "failed" };
    problem(error);
    view.update();
    return;
  }
  document.title = `${String(view.info.query ?? id).slice(0, 60)} · RLM`;
  view.update();
  await follow(
    id,
    (event, lost) => {
      const last = run.take(event, lost);
      draw();
      return last;
    },
    async (what, error) => {
      view.connection = what;
      if (what === "refused") {
        view.problem = error.message;
        problem(error);
      }
      if (what === "ended") {
        if (run.lost || !run.root?.meta?.timestamp) await fromTrajectory(view).catch(() => {});
        await refresh(view).catch(() => {});
        view.run.ended = true;
        renew();
      }
      draw();
    },
    stop.signal,
  );
}

function showFile() {
  if (!state.file) {
    location.hash = "#/";
    return;
  }
  const view = new RunView(state.file, {});
  show(view.element, view);
  document.title = `${state.file.id} · RLM`;
  view.update();
}

async function openFile(file) {
  if (!file) return;
  try {
    state.file = readTrajectory(await file.text(), file.name);
    if (location.hash === "#/file") route();
    else location.hash = "#/file";
  } catch (error) {
    show(h("p", { class: "notice bad", role: "alert" }, error.message));
    document.body.dataset.view = "run";
  }
}

// ---- where we are

function show(element, view = null, following = null) {
  state.following?.abort();
  Object.assign(state, { view, following });
  main.replaceChildren(element);
  scrollTo(0, 0);
}

function route() {
  const [, what = "", id = ""] = location.hash.split("/");
  document.body.dataset.view = what || "list";
  document.title = "RLM";
  drawRuns();
  if (what === "run" && id) showRun(decodeURIComponent(id));
  else if (what === "file") showFile();
  else showForm();
}

function showForm() {
  state.form = new RunForm((run) => {
    renew();
    location.hash = `#/run/${encodeURIComponent(run)}`;
  });
  state.form.failed = problem;
  if (state.again) state.form.fill(state.again);
  state.again = null;
  show(state.form.element);
  state.form.load();
  if (location.hash === "#/new") state.form.query.focus();
}

function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").textContent = { system: "◐", light: "○", dark: "●" }[name];
  byId("theme").setAttribute("aria-label", `Colours: ${name === "system" ? "as the system" : name}`);
  byId("theme").title = byId("theme").getAttribute("aria-label");
  try {
    localStorage.setItem("rlm-theme", name);
  } catch {
    // for this page alone, then
  }
}

function setUpTheme() {
  setTheme(document.documentElement.dataset.theme ?? "system");
  byId("theme").addEventListener("click", () =>
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % THEMES.length]),
  );
}

setUpKey();
setUpTheme();
byId("file").addEventListener("change", (event) => {
  openFile(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openFile(event.dataTransfer?.files[0]);
});
addEventListener("hashchange", route);
route();
forever();

// SPDX-License-Identifier: Apache-2.0
// The form that starts a run.
import { h, count } from "./dom.js";
import { getJson, post, upload } from "./api.js";

const INLINE = 500000; // characters of a context that go with the request itself

const LIMITS = [
  ["max_iterations", "Turns", 20, 1, 1],
  ["max_timeout", "Seconds", "", 0, "any"],
  ["max_tokens", "Tokens", "", 1, 1],
  ["max_budget", "Budget in USD", "", 0, "any"],
  ["max_errors", "Errors in a row", "", 1, 1],
  ["execution_timeout", "Seconds of a block", 30, 0, "any"],
];

function field(id, label, input, hint) {
  return h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("small", {}, hint));
}

function number(id, placeholder, min, step) {
  return h("input", {
    id,
    name: id,
    type: "number",
    min,
    step,
    placeholder: placeholder === "" ? "none" : placeholder,
    inputmode: "decimal",
  });
}

export class RunForm {
  constructor(begun) {
    this.begun = begun;
    this.file = null;
    this.query = h("textarea", {
      id: "query",
      name: "query",
      rows: 3,
      required: true,
      placeholder: "What is asked about the context",
    });
    this.context = h("textarea", {
      id: "context",
      name: "context",
      rows: 8,
      spellcheck: "false",
      placeholder: "Text, pasted here, or a file of any size",
    });
    this.chosen = h("span", { class: "muted" });
    this.picker = h("input", { id: "context-file", type: "file", onchange: () => this.choose(this.picker.files[0]) });
    this.drop = h(
      "button",
      { type: "button", class: "link", hidden: true, onclick: () => this.choose(null) },
      "Remove",
    );
    this.model = h("input", {
      id: "model",
      name: "model",
      list: "models",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "the service's",
    });
    this.models = h("datalist", { id: "models" });
    this.submodel = h("input", {
      id: "recursive",
      name: "recursive",
      list: "models",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "the service's",
    });
    this.problem = h("p", { class: "notice bad", role: "alert", hidden: true });
    this.send = h("button", { class: "primary", type: "submit" }, "Start");
    this.progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "The context is sent" });
    this.compaction = h("input", { id: "compaction", type: "checkbox" });
    this.element = h(
      "form",
      { class: "new", onsubmit: (event) => this.submit(event) },
      h("h1", {}, "New run"),
      field("query", "Query", this.query),
      h(
        "div",
        {
          class: "field",
          ondragover: (event) => event.preventDefault(),
          ondrop: (event) => (
            event.preventDefault(),
            event.stopPropagation(),
            this.choose(event.dataTransfer.files[0])
          ),
        },
        h("label", { for: "context" }, "Context"),
        this.context,
        h(
          "div",
          { class: "row" },
          h("label", { class: "button small", for: "context-file" }, "Choose a file", this.picker),
          this.chosen,
          this.drop,
        ),
      ),
      h(
        "div",
        { class: "grid" },
        field("model", "Model", this.model),
        field("recursive", "Model of sub-calls", this.submodel),
        field("max_depth", "Depth", number("max_depth", 1, 1, 1), "1: sub-queries are plain completions"),
      ),
      this.models,
      h(
        "details",
        { class: "fold small" },
        h("summary", {}, "Limits"),
        h(
          "div",
          { class: "grid" },
          LIMITS.map(([id, label, placeholder, min, step]) => field(id, label, number(id, placeholder, min, step))),
        ),
        h(
          "div",
          { class: "field check" },
          this.compaction,
          h("label", { for: "compaction" }, "Sum up the history when the model's window fills"),
        ),
      ),
      this.problem,
      h("div", { class: "row" }, this.send, this.progress),
    );
    this.element.addEventListener(
      "keydown",
      (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.element.requestSubmit(),
    );
  }

  async load() {
    try {
      const { data } = await getJson("/v1/models");
      const names = data
        .map((model) => String(model.id))
        .filter((name) => name !== "rlm")
        .map((name) => name.replace(/^rlm\//, ""));
      this.models.replaceChildren(...[...new Set(names)].map((value) => h("option", { value })));
    } catch {
      // a list of proposals, no more
    }
  }

  fill(told) {
    this.query.value = told.query ?? "";
    this.model.value = told.model ?? "";
  }

  choose(file) {
    this.file = file ?? null;
    this.picker.value = "";
    this.chosen.textContent = file ? `${file.name}, ${count(file.size)} bytes` : "";
    this.drop.hidden = !file;
    this.context.disabled = Boolean(file);
  }

  body() {
    const body = { query: this.query.value };
    for (const [id] of [["max_depth"], ...LIMITS]) {
      const value = this.element.elements[id].value;
      if (value !== "") body[id] = Number(value);
    }
    if (this.model.value.trim()) body.model = this.model.value.trim();
    if (this.submodel.value.trim())
      body.recursive_models = this.submodel.value
        .split(",")
        .map((name) => name.trim())
        .filter(Boolean);
    if (this.compaction.checked) body.compaction = true;
    return body;
  }

  async putContext(body) {
    const text = this.context.value;
    if (!this.file && text.length <= INLINE) {
      if (text) body.context = text;
      return;
    }
    const json = this.file && (this.file.type === "application/json" || this.file.name.endsWith(".json"));
    this.progress.hidden = false;
    const put = await upload(
      this.file ?? text,
      json ? "application/json" : "text/plain; charset=utf-8",
      (part) => (this.progress.value = part),
    );
    body.context_id = put.context_id;
  }

  async submit(event) {
    event.preventDefault();
    this.problem.hidden = true;
    this.send.disabled = true;
    try {
      const body = this.body();
      await this.putContext(body);
      const { run_id } = await post("/runs", body);
      this.begun(run_id);
    } catch (error) {
      this.problem.textContent = [error.message, error.remediation].filter(Boolean).join(" — ");
      this.problem.hidden = false;
      this.failed?.(error);
    } finally {
      this.send.disabled = false;
      this.progress.hidden = true;
      this.progress.value = 0;
    }
  }
}

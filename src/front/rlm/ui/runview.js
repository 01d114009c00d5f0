// SPDX-License-Identifier: Apache-2.0
// A run on the page: what it was asked, how it goes, what it has answered, the tree of its calls, and the turns of one of its nodes.
import { copyButton, count, fold, h, long, money, seconds, setOpen, short, tokens } from "./dom.js";
import { addUsage, nodeUsage, NO_USAGE, promptText } from "./model.js";
import { python } from "./python.js";
import { Tree } from "./tree.js";

const LIMITS = {
  timeout_exceeded: "Time is up",
  token_limit_exceeded: "The tokens are used up",
  budget_exceeded: "The budget is used up",
  error_threshold_exceeded: "Too many errors in a row",
  cancelled: "Cancelled",
};
const FEW = 20; // sub-calls of a block that are shown at first, beside runs and failures
const LIVE_OUTPUT = 8000; // characters of the end of a running block's output
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w-]*)[^\n]*\n([^]*?)(?:^ {0,3}\1[ \t]*$|$(?![^]))/gm;

function facts(...pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

function code(key, source) {
  return h(
    "div",
    { class: "code-box" },
    copyButton(() => source),
    long(key, source, (part) => python(part), "code"),
  );
}

function outputs(key, block, running) {
  const found = block.output.filter((part) => part.text);
  if (found.length === 0) return running ? h("p", { class: "muted waiting" }, "running") : null;
  return h(
    "div",
    { class: "output" },
    found.map((part, at) => {
      const name = part.stream === "stderr" ? "text stderr" : "text stdout";
      if (!running) return long(`${key}.${at}`, part.text, undefined, name);
      return h(
        "pre",
        { class: name },
        part.text.length > LIVE_OUTPUT ? `… ${count(part.text.length - LIVE_OUTPUT)} characters before\n` : "",
        part.text.slice(-LIVE_OUTPUT),
      );
    }),
    block.dropped && h("p", { class: "muted" }, "More output follows when the turn has ended."),
  );
}

function locals(key, result) {
  const names = Object.entries(result?.locals ?? {});
  if (names.length === 0) return null;
  return fold(
    `${key}.locals`,
    `${names.length} variable${names.length > 1 ? "s" : ""}`,
    () =>
      h(
        "table",
        { class: "locals" },
        h(
          "tbody",
          {},
          names.map(([name, value]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, name),
              h("td", {}, String(typeof value === "string" ? value : JSON.stringify(value)).slice(0, 2000)),
            ),
          ),
        ),
      ),
    { name: "small" },
  );
}

export class RunView {
  // `actions`: cancel(), again(), download(), go(node)
  constructor(run, actions) {
    Object.assign(this, {
      run,
      actions,
      info: {},
      connection: "",
      selected: "n0",
      nodeId: 0,
      cards: new Map(),
      drawn: "",
    });
    this.wanted = new Set(); // sub-calls that were looked for, blocks whose calls are all shown
    this.tree = new Tree((row) => this.select(row));
    this.head = h("header", { class: "run-head" });
    this.outcome = h("div", { class: "outcome", "aria-live": "polite" });
    this.crumbs = h("nav", { class: "crumbs", "aria-label": "Where this is in the run" });
    this.nodeHead = h("div", { class: "node-head" });
    this.turns = h("div", { class: "turns" });
    const wide = window.matchMedia("(min-width: 1000px)").matches;
    this.element = h(
      "article",
      { class: "run" },
      this.head,
      this.outcome,
      h(
        "div",
        { class: "run-body" },
        h("details", { class: "calls", open: wide }, h("summary", {}, "Calls"), this.tree.element),
        h("section", { class: "node", "aria-label": "Turns" }, this.crumbs, this.nodeHead, this.turns),
      ),
    );
  }

  get running() {
    return !this.run.ended && (this.info.status ?? "running") === "running";
  }

  status() {
    if (this.run.fromFile) return "file";
    if (this.info.status && this.info.status !== "running") return this.info.status;
    const result = this.run.root?.result;
    if (!result) return "running";
    return !result.error ? "succeeded" : result.error.code === "cancelled" ? "cancelled" : "failed";
  }

  update() {
    const bottom = document.scrollingElement;
    const follows = this.running && bottom.scrollTop > 80 && bottom.scrollHeight - bottom.scrollTop - innerHeight < 80;
    this.drawHead();
    this.drawOutcome();
    this.tree.update(this.run, this.selected);
    this.drawNode();
    if (follows) bottom.scrollTop = bottom.scrollHeight;
  }

  drawHead() {
    const { run, info } = this;
    const meta = run.root?.meta ?? {};
    const status = this.status();
    const total = run.totals();
    const query = info.query ?? meta.query ?? "";
    const began = run.root?.began || Date.parse(info.created_at) || 0;
    const lasted =
      info.status && info.status !== "running"
        ? info.execution_time
        : (run.root?.result?.execution_time ?? (this.running && began ? (Date.now() - began) / 1000 : null));
    const children = [
      h(
        "div",
        { class: "run-title" },
        h("span", { class: `status ${status}` }, status),
        h("code", { class: "run-id" }, run.id),
        h("span", { class: "grow" }),
        this.running &&
          !run.fromFile &&
          h(
            "button",
            { type: "button", class: "danger small", id: "cancel", onclick: this.actions.cancel },
            "Cancel run",
          ),
        !this.running &&
          !run.fromFile &&
          h("button", { type: "button", class: "small", onclick: this.actions.again }, "Run again"),
        !this.running &&
          !run.fromFile &&
          h("button", { type: "button", class: "small", onclick: this.actions.download }, "Download"),
      ),
      query && h("h1", { class: `query ${query.length > 300 ? "clamped" : ""}` }, query.slice(0, 4000)),
      facts(
        ["model", run.root?.model || info.model],
        ["time", lasted === null || lasted === undefined ? "" : seconds(lasted)],
        ["turns", run.root ? `${run.root.turns.length} of ${meta.max_iterations ?? "?"}` : ""],
        ["tokens", tokens(total)],
        ["cost", money(total.cost)],
        ["depth", meta.max_depth === undefined ? "" : `up to ${meta.max_depth}`],
        ["context", meta.context_length ? `${meta.context_type} · ${short(meta.context_length)} characters` : ""],
        ["sub-calls", run.calls.size ? String(run.calls.size) : ""],
      ),
    ];
    const shown = this.head.contains(document.activeElement) ? document.activeElement.textContent : "";
    this.head.replaceChildren(...children.filter(Boolean));
    if (shown) [...this.head.querySelectorAll("button")].find((button) => button.textContent === shown)?.focus();
  }

  drawOutcome() {
    const { run, info } = this;
    const result = run.root?.result;
    const failure = result?.error ?? (info.error ? { detail: info.error } : null);
    const answer = result?.answer ?? info.answer ?? null;
    const partial = result?.partial_answer ?? info.partial_answer ?? "";
    const sign = JSON.stringify([failure, answer?.length, partial?.length, run.lost, this.connection, this.problem]);
    if (sign === this.drawn) return;
    this.drawn = sign;
    const parts = [];
    if (this.problem) parts.push(h("p", { class: "notice bad", role: "alert" }, this.problem));
    if (this.connection === "lost") parts.push(h("p", { class: "notice" }, "The connection is lost. Trying again…"));
    if (run.lost)
      parts.push(
        h(
          "p",
          { class: "notice" },
          run.fromFile
            ? `${count(run.lost)} lines of the file are no JSON.`
            : `${count(run.lost)} events are no longer kept by the service: some of the turns below are not whole.`,
        ),
      );
    if (failure) {
      const limit = LIMITS[failure.code];
      parts.push(
        h(
          "section",
          { class: "box failure", "aria-label": "Error" },
          h("h2", {}, limit ?? "Failed"),
          failure.code && h("code", {}, failure.code),
          h("p", { class: "plain" }, String(failure.detail ?? "")),
          partial && fold("partial", "The model's last words", () => long("partial", partial), { open: true }),
        ),
      );
    }
    if (answer !== null && answer !== undefined)
      parts.push(
        h(
          "section",
          { class: "box answer", "aria-label": "Answer" },
          h(
            "div",
            { class: "row" },
            h("h2", {}, "Answer"),
            copyButton(() => String(answer)),
          ),
          long("answer", String(answer)),
        ),
      );
    this.outcome.replaceChildren(...parts);
  }

  // ---- a node

  select(row) {
    this.selected = row.key;
    const node = row.kind === "node" ? row.node : row.turn.node;
    if (row.call) {
      setOpen(`c${row.call.n}`);
      this.wanted.add(row.call.n);
    }
    if (row.turn) setOpen(cardKey(row.turn));
    const again = row.turn && this.cards.get(cardKey(row.turn));
    if (again) again.version = -1;
    this.show(node.id);
    const target = row.call
      ? this.turns.querySelector(`[data-key="c${row.call.n}"]`)
      : row.turn
        ? this.cards.get(cardKey(row.turn))?.element
        : this.nodeId === 0
          ? this.element
          : this.crumbs;
    target?.scrollIntoView({
      block: "start",
      behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
    });
    target?.classList.add("flash");
    setTimeout(() => target?.classList.remove("flash"), 1200);
  }

  show(id) {
    if (id !== this.nodeId) {
      this.nodeId = id;
      this.cards.clear();
      this.turns.replaceChildren();
    }
    this.update();
  }

  drawNode() {
    const node = this.run.nodes.get(this.nodeId);
    if (!node) {
      this.turns.replaceChildren(
        h(
          "p",
          { class: `muted ${this.problem || this.connection === "ended" ? "" : "waiting"}` },
          this.problem || this.connection === "ended"
            ? "Nothing is known of its turns."
            : this.connection === ""
              ? "loading"
              : "waiting for its first turn",
        ),
      );
      this.cards.clear();
      return;
    }
    this.drawCrumbs(node);
    if (this.cards.size === 0) this.turns.replaceChildren();
    for (const [key, card] of this.cards)
      if (!node.turns.includes(card.turn)) (card.element.remove(), this.cards.delete(key));
    node.turns.forEach((turn, at) => this.drawTurn(turn, at));
    if (node.turns.length === 0)
      this.turns.replaceChildren(
        h(
          "p",
          { class: "muted waiting" },
          node.result ? "It has ended before its first turn." : "waiting for its first turn",
        ),
      );
  }

  drawCrumbs(node) {
    const path = [];
    for (let at = node; at; at = at.parent === null ? null : this.run.nodes.get(at.parent)) {
      path.unshift(at);
      if (path.length > 50 || at.id === 0) break;
    }
    const sign = `${path.map((at) => at.id).join()} ${node.result ? 1 : 0} ${node.model}`;
    if (this.crumbs.dataset.sign === sign) return;
    this.crumbs.dataset.sign = sign;
    this.crumbs.replaceChildren(
      ...(path.length === 1 ? [] : path).flatMap((at, index) =>
        [
          index > 0 && h("span", { "aria-hidden": "true" }, "›"),
          h(
            "button",
            {
              type: "button",
              class: "link",
              "aria-current": at === node ? "location" : null,
              onclick: () => this.select({ key: `n${at.id}`, kind: "node", node: at }),
            },
            at.id === 0 ? "root" : `run ${at.id}`,
          ),
        ].filter(Boolean),
      ),
    );
    const meta = node.meta;
    this.nodeHead.replaceChildren(
      ...(node.id === 0
        ? []
        : [
            h("p", { class: "plain" }, String(meta.query ?? node.call?.preview ?? "").slice(0, 1000)),
            facts(
              ["model", node.model],
              ["depth", String(node.depth)],
              ["context", meta.context_length ? `${meta.context_type} · ${short(meta.context_length)} characters` : ""],
              ["time", node.result ? seconds(node.result.execution_time) : ""],
              ["tokens", tokens(nodeUsage(node))],
            ),
            node.result?.error &&
              h(
                "p",
                { class: "notice bad" },
                String(node.result.error.detail ?? node.result.error.code ?? node.result.error),
              ),
            node.result?.answer &&
              fold(`n${node.id}.answer`, "Answer", () => long(`n${node.id}.answer`, String(node.result.answer)), {
                open: true,
              }),
          ].filter(Boolean)),
    );
  }

  // ---- a turn

  drawTurn(turn, at) {
    const key = cardKey(turn);
    const live = !turn.done && this.running && !turn.node.result;
    const version = `${turn.version} ${live}`;
    let card = this.cards.get(key);
    if (card?.version === version) return;
    const element = fold(key, this.turnHead(turn, live), () => this.turnBody(turn, key, live), {
      open: true,
      name: `turn ${live ? "live" : ""}`,
    });
    if (card) card.element.replaceWith(element);
    else if (this.turns.children[at]) this.turns.children[at].before(element);
    else this.turns.append(element);
    this.cards.set(key, (card = { element, version, turn }));
  }

  turnHead(turn, live) {
    const subs = turn.calls.length;
    const spent = money(
      turn.calls.reduce((sum, call) => addUsage(sum, call.child ? nodeUsage(call.child) : call.usage), NO_USAGE).cost,
    );
    const bits = [
      turn.seconds !== null ? seconds(turn.seconds) : "",
      turn.modelSeconds !== null ? `model ${seconds(turn.modelSeconds)}` : "",
      tokens(turn.usage),
      money(turn.usage.cost),
      subs ? `${subs} sub-call${subs > 1 ? "s" : ""}${spent && ` ${spent}`}` : "",
    ].filter(Boolean);
    return [
      h("span", { class: "turn-name" }, `Turn ${turn.n}`),
      turn.final !== null && h("span", { class: "tag" }, "final answer"),
      live && h("span", { class: "tag live" }, turn.blocks.length ? "running code" : "the model writes"),
      h("span", { class: "turn-facts" }, bits.join(" · ")),
    ];
  }

  turnBody(turn, key, live) {
    const body = h("div", { class: "turn-body" });
    if (turn.compaction)
      body.append(
        h(
          "p",
          { class: "notice" },
          `The history was summed up: ${short(turn.compaction.before)} tokens became ${short(turn.compaction.after)}.`,
        ),
      );
    if (turn.prompt.length > 0) body.append(this.prompt(turn, key));
    const words = turn.done ? turn.response : turn.delta;
    body.append(...this.reply(turn, key, words, live));
    if (!live && !turn.done && !words && turn.blocks.length === 0)
      body.append(h("p", { class: "muted" }, "The run ended before the model had answered."));
    if (live && !words && turn.blocks.length === 0)
      body.append(h("p", { class: "muted waiting" }, "waiting for the model"));
    return body;
  }

  prompt(turn, key) {
    const size = turn.prompt.reduce((sum, message) => sum + promptText([message]).length, 0);
    const label = turn.earlier
      ? `Prompt: ${turn.prompt.length} new message${turn.prompt.length > 1 ? "s" : ""}, ${short(size)} characters, behind ${turn.earlier} earlier`
      : `Prompt: ${turn.prompt.length} message${turn.prompt.length > 1 ? "s" : ""}, ${short(size)} characters`;
    return fold(
      `${key}.prompt`,
      label,
      () =>
        h(
          "div",
          { class: "messages" },
          turn.prompt.map((message, at) =>
            h(
              "div",
              { class: "message" },
              h("span", { class: "role" }, String(message?.role ?? "?")),
              long(`${key}.prompt.${at}`, promptText([message])),
            ),
          ),
        ),
      { name: "small prompt" },
    );
  }

  // The model's words, its code where it stands among them, and below each block what came of it.
  reply(turn, key, words, live) {
    const parts = [];
    const left = turn.blocks.map((block, at) => ({ block, at })).filter(({ block }) => block);
    let from = 0;
    const prose = (text, at) =>
      text.trim() && parts.push(long(`${key}.words.${at}`, text.replace(/^\n+|\s+$/g, ""), undefined, "words"));
    for (const match of words.matchAll(FENCE)) {
      const ran = left.findIndex(({ block }) => block.code.trim() === match[3].trim());
      if (ran < 0 && !["repl", "python", "py"].includes(match[2])) continue;
      prose(words.slice(from, match.index), from);
      from = match.index + match[0].length;
      if (ran < 0) parts.push(code(`${key}.code.${from}`, match[3].replace(/\n$/, "")));
      else parts.push(this.block(turn, key, left.splice(ran, 1)[0], live));
    }
    prose(words.slice(from), from);
    for (const rest of left) parts.push(this.block(turn, key, rest, live));
    return parts;
  }

  block(turn, key, { block, at }, live) {
    const running = live && at === turn.blocks.length - 1;
    const name = `${key}.block.${at}`;
    const took = block.result?.execution_time;
    return h(
      "section",
      { class: "block", "aria-label": `Block ${at + 1}` },
      block.code && code(`${name}.code`, block.code),
      this.calls(name, block),
      outputs(`${name}.out`, block, running),
      h(
        "div",
        { class: "block-foot" },
        typeof took === "number" && h("span", { class: "muted" }, seconds(took)),
        !running && block.output.length === 0 && h("span", { class: "muted" }, "no output"),
        locals(name, block.result),
      ),
    );
  }

  // A batch may have hundreds: some of them, and those that somebody looks for.
  calls(name, block) {
    if (block.calls.length === 0) return null;
    const wanted = (call, at) => at < FEW || call.kind === "rlm" || call.error || this.wanted.has(call.n);
    const shown = this.wanted.has(name) ? block.calls : block.calls.filter(wanted);
    const left = block.calls.length - shown.length;
    const all = h("button", { type: "button", class: "link more-calls" }, `${count(left)} more sub-calls`);
    const element = h(
      "div",
      { class: "subcalls" },
      shown.map((call) => this.call(call)),
      left > 0 && all,
    );
    all.addEventListener("click", () => {
      this.wanted.add(name);
      element.replaceWith(this.calls(name, block));
    });
    return element;
  }

  call(call) {
    const usage = call.child ? nodeUsage(call.child) : call.usage;
    const head = [
      h("span", { class: `kind ${call.kind}` }, call.kind),
      h("span", { class: "label" }, call.preview || "(empty prompt)"),
      h(
        "span",
        { class: "turn-facts" },
        [
          call.model,
          call.seconds !== null ? seconds(call.seconds) : call.done ? "" : "running",
          tokens(usage),
          money(usage.cost),
        ]
          .filter(Boolean)
          .join(" · "),
      ),
      call.error && h("span", { class: "error" }, "error"),
    ];
    return fold(`c${call.n}`, head, () => this.callBody(call), {
      name: `call ${call.error ? "failed" : ""} ${call.done ? "" : "live"}`,
    });
  }

  callBody(call) {
    const prompt = call.full ? promptText(call.full.prompt) : call.preview;
    const answer = call.full ? promptText(call.full.response) : call.answer;
    return h(
      "div",
      { class: "call-body" },
      call.child &&
        h(
          "p",
          {},
          h(
            "button",
            {
              type: "button",
              class: "small",
              onclick: () => this.select({ key: `n${call.child.id}`, kind: "node", node: call.child }),
            },
            `Show run ${call.child.id}: ${call.child.turns.length} turn${call.child.turns.length === 1 ? "" : "s"}`,
          ),
        ),
      call.error && h("p", { class: "notice bad" }, call.error),
      h("h4", {}, call.full ? "Prompt" : `Prompt, its beginning (${count(call.length)} characters)`),
      long(`c${call.n}.prompt`, prompt),
      answer && [h("h4", {}, call.full ? "Reply" : "Reply, its beginning"), long(`c${call.n}.answer`, answer)],
    );
  }
}

function cardKey(turn) {
  return `${turn.node.id}:${turn.n}`;
}

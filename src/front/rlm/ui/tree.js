// SPDX-License-Identifier: Apache-2.0
// The tree of calls: nodes, their turns, the sub-calls of each; every row with its time on the run's line of time. Arrow keys move
// through it as in any tree.
import { h, money, seconds, tokens } from "./dom.js";
import { NO_USAGE, nodeUsage, turnUsage } from "./model.js";

const FEW = 8; // sub-calls of a turn that are shown at first, beside runs and failures

function span(began, lasted, ended, now) {
  return began
    ? { from: began, to: lasted !== null && lasted !== undefined ? began + lasted * 1000 : ended || now }
    : null;
}

function nodeRow(node, level, now, running) {
  const failed = node.result?.error;
  const lasted = node.result ? (node.result.execution_time ?? null) : null;
  return {
    key: `n${node.id}`,
    level,
    kind: "node",
    node,
    label: node.id === 0 ? "root" : `run ${node.id}`,
    model: node.model,
    usage: nodeUsage(node),
    seconds: lasted ?? (node.began && !node.result && running ? (now - node.began) / 1000 : null),
    error: failed ? failed.code || failed.detail || "failed" : node.call?.error,
    live: !node.result && running,
    span: span(node.began, lasted, node.ended, now),
    children: node.turns.length > 0,
  };
}

function turnRow(turn, level, now, running) {
  const live = !turn.done && running && !turn.node.result;
  return {
    key: `t${turn.node.id}.${turn.n}`,
    level,
    kind: "turn",
    node: turn.node,
    turn,
    label: `turn ${turn.n}`,
    usage: turnUsage(turn),
    seconds: turn.seconds ?? (live && turn.began ? (now - turn.began) / 1000 : null),
    error: turn.blocks.some((block) => block?.result?.stderr) ? "error in code" : null,
    soft: true,
    live,
    span: span(turn.began, turn.seconds, turn.ended, now),
    children: turn.calls.length > 0,
  };
}

function callRow(call, level, now, running) {
  if (call.child) {
    const row = nodeRow(call.child, level, now, running);
    return {
      ...row,
      usage: row.usage.input || row.usage.output ? row.usage : call.usage,
      seconds: call.seconds ?? row.seconds,
    };
  }
  const live = !call.done && running;
  return {
    key: `c${call.n}`,
    level,
    kind: call.kind,
    node: call.turn.node,
    turn: call.turn,
    call,
    label: call.preview || "(empty prompt)",
    model: call.model,
    usage: call.usage,
    seconds: call.seconds ?? (live && call.began ? (now - call.began) / 1000 : null),
    error: call.error,
    live,
    span: span(call.began, call.seconds, 0, now),
    children: false,
  };
}

export class Tree {
  constructor(select) {
    this.select = select;
    this.closed = new Map();
    this.all = new Set();
    this.rows = [];
    this.focused = "n0";
    this.element = h("div", {
      class: "tree",
      role: "tree",
      "aria-label": "Calls of this run",
      onkeydown: (event) => this.key(event),
    });
  }

  isOpen(row) {
    return row.children && !this.closed.get(row.key);
  }

  addNode(node, level, now, running, row = nodeRow(node, level, now, running)) {
    this.rows.push(row);
    if (!this.isOpen(row)) return;
    for (const turn of node.turns) {
      const of = turnRow(turn, level + 1, now, running);
      this.rows.push(of);
      if (this.isOpen(of)) this.addCalls(turn, level + 2, now, running, of.key);
    }
  }

  addCalls(turn, level, now, running, key) {
    const shown = this.all.has(key)
      ? turn.calls
      : turn.calls.filter((call, at) => at < FEW || call.kind === "rlm" || call.error);
    for (const call of shown) {
      const row = callRow(call, level, now, running);
      if (call.child) this.addNode(call.child, level, now, running, row);
      else this.rows.push(row);
    }
    const more = turn.calls.length - shown.length;
    if (more > 0)
      this.rows.push({
        key: `m${key}`,
        level,
        kind: "more",
        of: key,
        label: `${more} more`,
        usage: NO_USAGE,
        children: false,
      });
  }

  update(run, selected) {
    const now = run.fromFile ? run.latest() : Date.now();
    this.rows = [];
    this.selected = selected;
    this.run = run;
    if (run.root) this.addNode(run.root, 1, now, !run.ended);
    const from = run.root?.began ?? 0;
    const to = run.ended ? run.latest() : now;
    if (!this.rows.some((row) => row.key === this.focused)) this.focused = this.rows[0]?.key;
    const focus = this.element.contains(document.activeElement);
    this.element.replaceChildren(...this.rows.map((row) => this.draw(row, from, Math.max(to - from, 1))));
    if (focus) this.element.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  draw(row, from, whole) {
    const open = this.isOpen(row);
    const facts = [row.model && h("span", { class: "model" }, row.model), tokens(row.usage), money(row.usage.cost)]
      .filter(Boolean)
      .flatMap((fact, at) => (at ? [" · ", fact] : [fact]));
    const element = h(
      "div",
      {
        class: `tree-row ${row.kind} ${row.live ? "live" : ""} ${row.error ? (row.soft ? "warned" : "failed") : ""}`,
        role: "treeitem",
        "aria-level": row.level,
        "aria-expanded": row.children ? open : null,
        "aria-selected": row.key === this.selected,
        tabindex: row.key === this.focused ? 0 : -1,
        dataset: { key: row.key },
        title: row.error ?? row.call?.preview,
        onclick: (event) => this.click(row, event),
      },
      h("span", { class: "twist", "aria-hidden": "true" }, row.children ? (open ? "▾" : "▸") : ""),
      h(
        "span",
        { class: "what" },
        h(
          "span",
          { class: "line" },
          h("span", { class: `kind ${row.kind}` }, KINDS[row.kind]),
          h("span", { class: "label" }, row.label),
          h("span", { class: "time" }, row.seconds === null || row.seconds === undefined ? "" : seconds(row.seconds)),
        ),
        (facts.length > 0 || row.error) &&
          h(
            "span",
            { class: "facts" },
            facts,
            row.error && h("span", { class: "error" }, facts.length ? " · " : "", row.error),
          ),
        row.span && h("span", { class: "bar", "aria-hidden": "true" }, h("i")),
      ),
    );
    element.style.setProperty("--level", row.level - 1);
    if (row.span) {
      element.style.setProperty("--from", `${(100 * Math.max(row.span.from - from, 0)) / whole}%`);
      element.style.setProperty("--wide", `${(100 * Math.max(row.span.to - row.span.from, 0)) / whole}%`);
    }
    return element;
  }

  click(row, event) {
    this.focused = row.key;
    if (row.kind === "more") {
      this.all.add(row.of);
      this.update(this.run, this.selected);
    } else if (event.target.classList.contains("twist") && row.children) {
      this.toggle(row);
    } else {
      this.select(row);
    }
  }

  toggle(row, open = !this.isOpen(row)) {
    this.closed.set(row.key, !open);
    this.update(this.run, this.selected);
  }

  key(event) {
    const at = this.rows.findIndex((row) => row.key === this.focused);
    const row = this.rows[at];
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.rows.length - 1 };
    if (event.key in moves) this.go(Math.min(Math.max(moves[event.key], 0), this.rows.length - 1));
    else if (event.key === "ArrowRight" && row.children) this.isOpen(row) ? this.go(at + 1) : this.toggle(row, true);
    else if (event.key === "ArrowLeft")
      this.isOpen(row)
        ? this.toggle(row, false)
        : this.go(this.rows.findLastIndex((one, index) => index < at && one.level < row.level));
    else if (event.key === "Enter" || event.key === " ") this.click(row, { target: this.element });
    else return;
    event.preventDefault();
  }

  go(at) {
    if (at < 0) return;
    this.focused = this.rows[at].key;
    for (const element of this.element.children) element.tabIndex = element.dataset.key === this.focused ? 0 : -1;
    this.element.children[at].focus();
  }
}

const KINDS = { node: "rlm", turn: "", llm: "llm", rlm: "rlm", more: "" };

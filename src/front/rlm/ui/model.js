// SPDX-License-Identifier: Apache-2.0
// A run as a tree, made of the service's events (docs/rlm-events.md) or of a trajectory file. What comes may be of any shape: nothing
// is taken for granted but that it is JSON.

const text = (value) =>
  typeof value === "string" ? value : value === null || value === undefined ? "" : JSON.stringify(value, null, 2);
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : 0);
const optional = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);
const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const time = (value) => Date.parse(value) || 0;

const OUTPUT_MAX = 2000000; // characters of a block's output that are kept while it runs; its turn brings the rest

function usage(input, output, cost, estimated = false) {
  return { input: number(input), output: number(output), cost: optional(cost), estimated: Boolean(estimated) };
}

export function addUsage(a, b) {
  const cost = a.cost === null && b.cost === null ? null : (a.cost ?? 0) + (b.cost ?? 0);
  return { input: a.input + b.input, output: a.output + b.output, cost, estimated: a.estimated || b.estimated };
}

export const NO_USAGE = usage(0, 0, null);

// {"model_usage_summaries": {model: {...}}, "total_cost"}
export function summary(told) {
  const models = Object.values(object(object(told).model_usage_summaries)).map(object);
  if (models.length === 0) return null;
  const sum = (name) => models.reduce((total, model) => total + number(model[name]), 0);
  const costs = models.map((model) => optional(model.total_cost)).filter((cost) => cost !== null);
  const cost = optional(told.total_cost) ?? (costs.length ? costs.reduce((a, b) => a + b, 0) : null);
  return usage(sum("total_input_tokens"), sum("total_output_tokens"), cost);
}

class Node {
  constructor(id, meta = {}) {
    Object.assign(this, {
      id,
      parent: optional(meta.parent),
      call: null,
      turns: [],
      result: null,
      messages: 0,
      lastPrompt: [],
    });
    this.take(meta);
  }

  take(meta) {
    this.meta = meta;
    this.model = text(meta.root_model) || text(object(meta.backend_kwargs).model_name);
    this.depth = number(meta.depth);
    this.began = time(meta.timestamp);
    this.ended = 0;
  }

  turn(n) {
    let turn = this.turns.find((one) => one.n === n);
    if (!turn) {
      turn = {
        node: this,
        n,
        version: 0,
        began: 0,
        ended: 0,
        done: false,
        delta: "",
        response: "",
        prompt: [],
        earlier: 0,
        blocks: [],
        calls: [],
        usage: NO_USAGE,
        seconds: null,
        modelSeconds: null,
        final: null,
        compaction: null,
      };
      this.turns.push(turn);
      this.turns.sort((a, b) => a.n - b.n);
    }
    return turn;
  }
}

function newBlock(code) {
  return { code, output: [], length: 0, dropped: false, result: null, calls: [] };
}

function say(block, stream, words) {
  if (block.length >= OUTPUT_MAX) {
    block.dropped = true;
    return;
  }
  const last = block.output.at(-1);
  block.length += words.length;
  if (last && last.stream === stream) last.text += words;
  else block.output.push({ stream, text: words });
}

export class Run {
  constructor(id) {
    Object.assign(this, { id, nodes: new Map(), calls: new Map(), lost: 0, fromFile: false, ended: false, version: 0 });
  }

  get root() {
    return this.nodes.get(0) ?? null;
  }

  node(id) {
    let node = this.nodes.get(id);
    if (!node) this.nodes.set(id, (node = new Node(id)));
    return node;
  }

  // Takes an event; true when it is the run's last.
  take(event, lost = 0) {
    event = object(event);
    const handler = HANDLERS[event.type];
    this.lost += lost;
    this.version += 1;
    if (!handler) return false;
    const node = this.node(number(event.node));
    handler(this, node, event);
    return event.type === "result" && node.id === 0;
  }

  latest() {
    let latest = 0;
    for (const node of this.nodes.values()) {
      latest = Math.max(latest, node.began, node.ended);
      for (const turn of node.turns) latest = Math.max(latest, turn.began, turn.ended);
    }
    return latest;
  }

  totals() {
    const told = this.root?.result && summary(this.root.result.usage_summary);
    return told ?? (this.root ? nodeUsage(this.root) : NO_USAGE);
  }
}

export function turnUsage(turn) {
  return turn.calls.reduce((sum, call) => addUsage(sum, call.child ? nodeUsage(call.child) : call.usage), turn.usage);
}

export function nodeUsage(node) {
  return node.turns.reduce((sum, turn) => addUsage(sum, turnUsage(turn)), NO_USAGE);
}

function touch(turn) {
  turn.version += 1;
}

const HANDLERS = {
  metadata(run, node, event) {
    node.parent = optional(event.parent);
    node.take(event);
    const call = run.calls.get(event.call);
    if (call) {
      call.child = node;
      node.call = call;
      touch(call.turn);
    }
  },

  turn(run, node, event) {
    const turn = node.turn(number(event.iteration));
    turn.began = time(event.timestamp);
    touch(turn);
  },

  delta(run, node, event) {
    const turn = node.turn(number(event.iteration));
    turn.delta += text(event.text);
    touch(turn);
  },

  code(run, node, event) {
    const turn = node.turn(number(event.iteration));
    turn.blocks[number(event.block)] = newBlock(text(event.code));
    touch(turn);
  },

  output(run, node, event) {
    const turn = node.turn(number(event.iteration));
    const block = (turn.blocks[number(event.block)] ??= newBlock(""));
    say(block, event.stream === "stderr" || event.stream === 2 ? "stderr" : "stdout", text(event.text));
    touch(turn);
  },

  subcall_start(run, node, event) {
    const turn = node.turn(number(event.iteration));
    const call = {
      n: number(event.call),
      turn,
      kind: event.kind === "rlm" ? "rlm" : "llm",
      model: text(event.model),
      depth: number(event.depth),
      preview: text(event.prompt_preview),
      length: number(event.prompt_length),
      began: time(event.timestamp),
      seconds: null,
      error: null,
      usage: NO_USAGE,
      done: false,
      answer: "",
      child: null,
      full: null,
    };
    run.calls.set(call.n, call);
    turn.calls.push(call);
    (turn.blocks.at(-1) ?? (turn.blocks[0] = newBlock(""))).calls.push(call);
    touch(turn);
  },

  subcall_complete(run, node, event) {
    const call = run.calls.get(number(event.call));
    if (!call) return;
    Object.assign(call, {
      done: true,
      seconds: optional(event.duration),
      error: event.error ? text(event.error) : null,
      answer: text(event.response_preview),
      usage: usage(event.input_tokens, event.output_tokens, event.cost),
    });
    touch(call.turn);
  },

  iteration(run, node, event) {
    finishTurn(node.turn(number(event.iteration)), event, list(event.prompt), node.messages);
    node.messages += list(event.prompt).length;
  },

  compaction(run, node, event) {
    const turn = node.turn(number(event.iteration));
    turn.compaction = { before: number(event.tokens_before), after: number(event.tokens_after) };
    touch(turn);
  },

  result(run, node, event) {
    node.result = event;
    node.ended = time(event.timestamp) || node.began + number(event.execution_time) * 1000;
    if (node.id === 0) run.ended = true;
    for (const turn of node.turns) if (!turn.done) touch(turn);
    if (node.call) touch(node.call.turn);
  },
};

// Full texts of sub-calls come with their turn, in the order of their ends; which is which, their beginnings say.
function matchCalls(calls, told) {
  const left = [...calls];
  for (const full of told) {
    const prompt = promptText(full.prompt);
    let at = left.findIndex(
      (call) => prompt.startsWith(call.preview.slice(0, 60)) && (!full.root_model || call.model === full.root_model),
    );
    if (at < 0) at = 0;
    const [call] = left.splice(at, 1);
    if (call) call.full = full;
  }
}

export function promptText(prompt) {
  if (Array.isArray(prompt)) return prompt.map((message) => text(object(message).content ?? message)).join("\n\n");
  return text(prompt);
}

function finishTurn(turn, event, prompt, earlier) {
  turn.done = true;
  turn.prompt = prompt;
  turn.earlier = earlier;
  turn.response = text(event.response);
  turn.seconds = optional(event.iteration_time);
  turn.modelSeconds = optional(event.model_time);
  turn.ended = time(event.timestamp);
  if (!turn.began && turn.ended) turn.began = turn.ended - number(event.iteration_time) * 1000;
  turn.final =
    typeof event.final_answer === "string"
      ? event.final_answer
      : Array.isArray(event.final_answer)
        ? text(event.final_answer.at(-1))
        : null;
  if (event.usage)
    turn.usage = usage(event.usage.input_tokens, event.usage.output_tokens, event.usage.cost, event.usage.estimated);
  turn.blocks = list(event.code_blocks).map((told, index) => {
    const block = newBlock(text(object(told).code));
    const result = object(object(told).result);
    block.result = result;
    block.calls = turn.blocks[index]?.calls ?? [];
    if (result.stdout) say(block, "stdout", text(result.stdout));
    if (result.stderr) say(block, "stderr", text(result.stderr));
    matchCalls(block.calls, list(result.rlm_calls).map(object));
    return block;
  });
  touch(turn);
}

// ---- trajectory files

let nextCall = 0;

function readTurn(run, node, told) {
  const turn = node.turn(number(told.iteration) || node.turns.length + 1);
  const prompt = list(told.prompt);
  let same = 0;
  while (
    same < node.lastPrompt.length &&
    same < prompt.length &&
    text(object(prompt[same]).content) === text(object(node.lastPrompt[same]).content)
  )
    same += 1;
  node.lastPrompt = prompt;
  finishTurn(turn, told, prompt.slice(same), same);
  turn.blocks.forEach((block) => {
    for (const full of list(block.result.rlm_calls).map(object)) block.calls.push(readCall(run, turn, full));
    turn.calls.push(...block.calls);
  });
}

function readCall(run, turn, full) {
  const prompt = promptText(full.prompt);
  const child = full.metadata ? object(full.metadata) : null;
  const answer = text(full.response);
  const call = {
    n: (nextCall += 1),
    turn,
    kind: child ? "rlm" : "llm",
    model: text(full.root_model),
    depth: turn.node.depth + 1,
    preview: prompt.slice(0, 80),
    length: prompt.length,
    began: 0,
    seconds: optional(full.execution_time),
    error: answer.startsWith("Error:") ? answer : null,
    usage: summary(full.usage_summary) ?? NO_USAGE,
    done: true,
    answer: answer.slice(0, 200),
    child: null,
    full,
  };
  run.calls.set(call.n, call);
  if (child) {
    const node = new Node(run.nodes.size, object(child.run_metadata));
    node.parent = turn.node.id;
    node.call = call;
    node.depth = call.depth;
    call.child = node;
    run.nodes.set(node.id, node);
    for (const told of list(child.iterations)) readTurn(run, node, object(told));
    node.result = { answer, error: null, execution_time: call.seconds };
    node.ended = node.began + (call.seconds ?? 0) * 1000;
  }
  return call;
}

// The lines of a trajectory file. Throws when none of them is one of its.
export function readTrajectory(contents, name) {
  const run = new Run(name);
  const node = new Node(0);
  let known = 0;
  run.fromFile = true;
  run.nodes.set(0, node);
  for (const line of contents.split("\n")) {
    if (!line.trim()) continue;
    let told;
    try {
      told = object(JSON.parse(line));
    } catch {
      run.lost += 1;
      continue;
    }
    if (told.type === "metadata") node.take(told);
    else if (told.type === "iteration") readTurn(run, node, told);
    else continue;
    known += 1;
  }
  if (!known) throw new Error(`${name} is no trajectory: none of its lines is a run's metadata or iteration.`);
  const last = node.turns.at(-1);
  node.ended = last?.ended ?? 0;
  node.result = {
    answer: last?.final ?? null,
    error: null,
    execution_time: node.began && node.ended ? (node.ended - node.began) / 1000 : null,
  };
  run.ended = true;
  return run;
}

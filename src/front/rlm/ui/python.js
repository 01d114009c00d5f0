// SPDX-License-Identifier: Apache-2.0
// Python in colours: one pass over the text, a span for each word that has one.

const WORDS =
  /(#[^\n]*)|([rbfuRBFU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?))|(@[A-Za-z_][\w.]*)|(\b(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?\d+)?j?))|([A-Za-z_]\w*)/g;

const KEYWORDS = new Set(
  (
    "and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass " +
    "raise return try while with yield None True False"
  ).split(" "),
);
const BUILTINS = new Set(
  (
    "abs all any bool bytes callable chr dict dir divmod enumerate filter float format frozenset getattr hasattr hash hex id input int isinstance iter len " +
    "list map max min next object oct open ord pow print range repr reversed round set setattr slice sorted str sum super tuple type vars zip"
  ).split(" "),
);
// What a run gives to its code.
const OURS = /^(?:(?:llm|rlm)_query(?:_batched)?|FINAL|FINAL_VAR|SHOW_VARS|answer|context(?:_\d+)?|history(?:_\d+)?)$/;
const MAX = 100000;

function kind(match, before) {
  if (match[1]) return "comment";
  if (match[2]) return "string";
  if (match[3]) return "decorator";
  if (match[4]) return "number";
  if (KEYWORDS.has(match[5])) return "keyword";
  if (before === "def" || before === "class") return "name";
  if (OURS.test(match[5])) return "ours";
  return BUILTINS.has(match[5]) ? "builtin" : "";
}

// Nodes for the text; a very long one stays plain.
export function python(text) {
  if (text.length > MAX) return [text];
  const nodes = [];
  let at = 0;
  let before = "";
  for (const match of text.matchAll(WORDS)) {
    const name = kind(match, before);
    before = match[5] ?? "";
    if (!name) continue;
    if (match.index > at) nodes.push(text.slice(at, match.index));
    const span = document.createElement("span");
    span.className = `py-${name}`;
    span.textContent = match[0];
    nodes.push(span);
    at = match.index + match[0].length;
  }
  nodes.push(text.slice(at));
  return nodes;
}

// SPDX-License-Identifier: Apache-2.0
// Making elements. Text only ever becomes a text node: nothing that a model, a context or a file says is read as markup.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || (value === false && !name.startsWith("aria-"))) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (value === true && !name.startsWith("aria-")) element.setAttribute(name, "");
    else element.setAttribute(name, String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// A part that opens; its contents are made when it is opened first. What was open stays open when it is drawn anew.
const opened = new Map();
const limits = new Map();

export function fold(key, summary, contents, { open = false, name = "" } = {}) {
  const isOpen = opened.get(key) ?? open;
  const element = h("details", { class: `fold ${name}`, open: isOpen, dataset: { key } }, h("summary", {}, summary));
  const fill = () => element.childElementCount === 1 && element.append(contents());
  if (isOpen) fill();
  element.addEventListener("toggle", () => {
    if (element.open) fill();
    if (element.isConnected) opened.set(key, element.open);
  });
  return element;
}

export function setOpen(key, open = true) {
  opened.set(key, open);
}

// A text that may be very long: its beginning, and more of it when it is asked for.
const PIECE = 20000;
const PIECE_LINES = 400;

export function piece(text, limit = PIECE) {
  let end = Math.min(text.length, limit);
  let at = -1;
  for (let line = 0; line < PIECE_LINES * Math.max(1, limit / PIECE); line += 1) {
    at = text.indexOf("\n", at + 1);
    if (at < 0 || at >= end) break;
  }
  if (at >= 0 && at < end) end = at + 1;
  const code = end < text.length ? text.charCodeAt(end - 1) : 0;
  return code >= 0xd800 && code < 0xdc00 ? end - 1 : end;
}

export function long(key, text, make = (part) => [part], name = "text") {
  const pre = h("pre", { class: name, tabindex: 0 });
  const wrap = h("div", { class: "long" }, pre);
  const draw = (limit) => {
    const end = piece(text, limit);
    pre.replaceChildren(...make(text.slice(0, end)));
    wrap.querySelector(".more")?.remove();
    if (end === text.length) return;
    const more = (label, next) =>
      h("button", { type: "button", class: "link", onclick: () => (limits.set(key, next), draw(next)) }, label);
    wrap.append(
      h(
        "div",
        { class: "more" },
        `${count(end)} of ${count(text.length)} characters`,
        more("More", limit * 4),
        more("All", Infinity),
      ),
    );
  };
  draw(limits.get(key) ?? PIECE);
  return wrap;
}

export function copyButton(text) {
  const button = h("button", { type: "button", class: "link copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

// Figures

export function count(number) {
  return Math.round(number).toLocaleString("en-US");
}

export function short(number) {
  if (number < 1000) return String(Math.round(number));
  const [unit, size] = number < 999500 ? ["k", 1e3] : ["M", 1e6];
  const value = number / size;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}${unit}`;
}

export function seconds(value) {
  if (!Number.isFinite(value)) return "";
  if (value > 0 && value < 0.001) return "<1 ms";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${String(whole % 60).padStart(2, "0")}s`;
  return `${Math.floor(whole / 3600)}h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")}m`;
}

export function money(value) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "$0";
  if (value < 0.0001) return "<$0.0001";
  return `$${value < 1 ? value.toFixed(4) : value.toFixed(2)}`;
}

export function tokens(usage) {
  if (!usage || (!usage.input && !usage.output)) return "";
  return `${usage.estimated ? "~" : ""}${short(usage.input)} → ${short(usage.output)} tok`;
}

export function ago(time) {
  const passed = (Date.now() - time) / 1000;
  if (!Number.isFinite(passed)) return "";
  if (passed < 60) return "just now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(time).toLocaleDateString();
}

// SPDX-License-Identifier: Apache-2.0
// Before anything is drawn: the colours that the reader has chosen.
"use strict";

try {
  const chosen = localStorage.getItem("rlm-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be switched off: the system's colours, then.
}

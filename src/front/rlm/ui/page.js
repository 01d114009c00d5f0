// SPDX-License-Identifier: Apache-2.0
// The list of runs, renewed every second. Texts of runs are only ever set as text.
"use strict";

let key = sessionStorage.getItem("rlm-key") || "";

function cell(row, text) {
  row.insertCell().textContent = text;
}

function show(runs) {
  const body = document.getElementById("runs");
  body.replaceChildren();
  for (const run of runs) {
    const row = body.insertRow();
    for (const text of [run.created_at, run.status, run.model, run.iterations, run.execution_time.toFixed(1), run.query]) cell(row, text);
  }
}

async function renew() {
  const answer = await fetch("/runs", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  document.getElementById("key-form").hidden = answer.status !== 401;
  if (answer.ok) show((await answer.json()).runs);
  document.getElementById("problem").textContent = answer.ok ? "" : `The service answers ${answer.status}.`;
}

async function forever() {
  try {
    await renew();
  } catch (error) {
    document.getElementById("problem").textContent = "The service cannot be reached.";
  }
  setTimeout(forever, 1000);
}

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = document.getElementById("key").value;
  sessionStorage.setItem("rlm-key", key);
});
forever();

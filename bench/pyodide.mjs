// SPDX-License-Identifier: Apache-2.0
// Runs programs in Pyodide on request: one path per line of stdin, one JSON object per answer; the first line
// says which version it is. Arguments: the folder of the npm package.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const started = performance.now();
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`).href);
const pyodide = await loadPyodide({ indexURL: `${folder}/` });
const ready = (performance.now() - started) / 1000;
const version = pyodide.runPython("import sys; sys.version.split()[0]");
console.log(JSON.stringify({ version: `${pyodide.version} (Python ${version}, Node ${process.version})`, seconds: ready }));

pyodide.runPython(`
import json, time
programs = {}
def bench(path, text):
    if path not in programs:
        programs[path] = {"__name__": "program"}
        exec(compile(text, path, "exec"), programs[path])
    start = time.perf_counter()
    value = programs[path]["run"]()
    return json.dumps({"seconds": time.perf_counter() - start, "value": repr(value)})
`);
const bench = pyodide.globals.get("bench");
for await (const line of createInterface({ input: process.stdin })) {
  console.log(bench(line.trim(), readFileSync(line.trim(), "utf8")));
}

# SPDX-License-Identifier: Apache-2.0
# ./dev lint and ./dev fmt. Each check prints its findings and leaves one TAP line.

c_files() { git ls-files -co --exclude-standard 'src/*.c' 'src/*.h' 'tests/*.c' 'tests/*.h' 'sdk/c/*.c' 'sdk/c/*.h'; }

# The C sources that the configured build compiles: clang-tidy needs their flags. It would look at a file once for each program that
# has it, so build/lint gets the commands without the repetitions: those with the same definitions, which find the same headers.
compiled_files() {
    mkdir -p build/lint
    /usr/bin/python3 -c '
import json, os, shlex
root = os.getcwd() + "/"
commands, paths = {}, set()
for entry in json.load(open("build/compile_commands.json")):
    path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
    if path.startswith(("src/", "tests/", "sdk/c/")):
        said = tuple(word for word in shlex.split(entry["command"]) if word.startswith(("-D", "-U", "-m", "-std=", "-include", "-pthread")))
        commands.setdefault((path, said), entry)
        paths.add(path)
json.dump(list(commands.values()), open("build/lint/compile_commands.json", "w"))
print(*sorted(paths), sep="\n")'
}

check_format() { c_files | xargs -r clang-format-19 --dry-run --Werror; }
check_layers() { /usr/bin/python3 tools/check_layers.py; }
check_lengths() { /usr/bin/python3 tools/check_lengths.py; }
check_tables() { /usr/bin/python3 tools/tables.py --check; }
check_shell() { bash -n dev && for script in tools/*.sh guest/*.sh .ci/run; do bash -n "$script" || return 1; done; }

# syntaxError: its parser knows less C than the compilers that have accepted the file.
check_cppcheck() {
    cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
        --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=syntaxError -j 2 -I src -I tables src
}

check_tidy() { compiled_files | xargs -r -n 4 -P 2 clang-tidy-19 -p build/lint --quiet --warnings-as-errors='*'; }

check_types() { (cd sdk/python && mypy --cache-dir=/dev/null --config-file pyproject.toml); }

lint_check() { # tap-file name command
    if "$3"; then
        echo "ok - $2" >>"$1"
    else
        echo "not ok - $2" >>"$1"
    fi
}

# Checks whose tool is not installed are left out: ./dev lint installs them, ./dev test takes what is there.
lint_all() { # tap-file
    local tap=$1.unnumbered
    : >"$tap"
    lint_check "$tap" "include layers" check_layers
    lint_check "$tap" "lengths" check_lengths
    lint_check "$tap" "shell syntax" check_shell
    lint_check "$tap" "tables of the README" check_tables
    ! command -v clang-format-19 >/dev/null || lint_check "$tap" "formatting" check_format
    ! command -v cppcheck >/dev/null || lint_check "$tap" "cppcheck" check_cppcheck
    ! command -v clang-tidy-19 >/dev/null || [ ! -e build/compile_commands.json ] || lint_check "$tap" "clang-tidy" check_tidy
    ! command -v mypy >/dev/null || lint_check "$tap" "types of the Python library" check_types
    awk '{ sub(/ok -/, "ok " NR " -"); print } END { print "1.." NR }' "$tap" >"$1"
    rm -f "$tap"
}

verb_lint() {
    [ $# -eq 0 ] || usage_error "lint takes no arguments"
    stages_begin 1
    packages_ready build lint
    configure "$build" >"$logs/configure.log" 2>&1 || echo "build is not configured: clang-tidy is left out" >&2
    lint_all "$logs/lint.tap"
    cat "$logs/lint.tap"
    ! grep -q '^not ok' "$logs/lint.tap"
}

verb_fmt() {
    [ $# -eq 0 ] || usage_error "fmt takes no arguments"
    stages_begin 1
    packages_ready lint
    c_files | xargs -r clang-format-19 -i
    /usr/bin/python3 tools/tables.py --write
}

# SPDX-License-Identifier: Apache-2.0
# The soak of tests/soak: for as long as one likes, and briefly in ./dev test.

suite_soak() {
    CODEMODE_BUILD=$build PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/soak/run.py --minutes 0.6 --seed 1 --tap "$results/soak.tap"
}

verb_soak() {
    stages_begin 3
    setup_and_build test
    CODEMODE_BUILD=$build PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 tests/soak/run.py "$@"
}

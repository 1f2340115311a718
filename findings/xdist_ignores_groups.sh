#!/bin/bash
# pytest 9.2.0 with pytest-xdist 3.8.0: `--dist loadgroup` groups nothing, and says nothing.
#
# One would guess: tests with the same mark `xdist_group` run in one process, as the documentation of --dist loadgroup says.
# What happens: they are spread singly. pytest-xdist 3.8.0 appends "@group" to `item._nodeid`; pytest 9.2.0 makes a test's
# node id from `item._id`, so the group never reaches the scheduler. With pytest 9.0.3 the same command keeps them together.
# Who is hurt: a suite whose groups share a costly fixture makes it once in every process, in silence.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat > test_group.py <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(20))
def test_one(number):
    time.sleep(0.02)
    with open(os.environ["SEEN"], "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
PY

processes() { # how many processes ran the group's tests, with this version of pytest
    python3 -m venv "env-$1"
    "env-$1/bin/pip" install -q --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    SEEN="$work/seen-$1" "env-$1/bin/pytest" -q -n 2 --dist loadgroup test_group.py >&2
    sort -u "$work/seen-$1" | wc -l
}

for version in 9.0.3 9.2.0; do
    echo "pytest $version, pytest-xdist 3.8.0: one group of 20 tests ran in $(processes $version) process(es)" | tee -a told
done
grep -q "9.0.3, .* in 1 process" told && grep -q "9.2.0, .* in 2 process" told && echo "as described" ||
    { echo "NOT as described: this has changed"; exit 1; }

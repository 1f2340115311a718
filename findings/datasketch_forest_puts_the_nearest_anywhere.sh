#!/bin/bash
# datasketch 2.0.0: MinHashLSHForest.query(m, 5) gives its keys in an order that changes with the process's hash seed.
#
# Guess: the result is a list of the nearest keys, nearest first, as of every search for the k nearest: [0] is the copy
# of the text that is asked for, which is in the forest.
# Seen: the keys are gathered in a set, and the list is that set: with string keys the copy stands at another place in
# each process. The documentation speaks of the top k and of ranking the keys afterwards for accuracy; that a list has
# no order, it doesn't say.
#
# Where it matters: removal of near duplicates: whoever takes query(m, 1 + n)[0] as the nearest, or cuts a longer list,
# compares with a random text. Sort by jaccard() oneself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasketch==2.0.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import os
import subprocess
import sys

from datasketch import MinHash, MinHashLSHForest


def sketch(numbers):
    made = MinHash(num_perm=128)
    for number in numbers:
        made.update(str(number).encode())
    return made


def ask():
    forest, texts = MinHashLSHForest(num_perm=128), {}
    for shift in range(0, 50, 5):
        texts[f"moved by {shift}"] = sketch(range(shift, 100 + shift))
        forest.add(f"moved by {shift}", texts[f"moved by {shift}"])
    forest.index()
    return forest.query(texts["moved by 0"], 5)


if len(sys.argv) > 1:
    print(ask().index("moved by 0"))
else:
    places = {
        int(subprocess.check_output([sys.executable, __file__, "x"], env={**os.environ, "PYTHONHASHSEED": str(seed)}))
        for seed in range(1, 13)
    }
    print("the copy's places in 12 processes: more than one", len(places) > 1, "always first", places == {0})
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="the copy's places in 12 processes: more than one True always first False"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

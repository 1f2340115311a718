#!/bin/bash
# datasets 5.2.0: map(num_proc=2) that draws with NumPy or PyTorch draws the same numbers for both halves; with random
# it doesn't.
#
# Guess: where map() is split over two processes, the rows get different random numbers, as PyTorch's DataLoader sees
# to it for its workers.
# Seen: both processes begin with a copy of the parent's generators. np.random and torch.rand give row 4 what row 1
# has, and so on. Python's own random is seeded anew in each process: its numbers differ, and differ in each run,
# whatever random.seed() was given.
#
# Where it matters: masking, noise, and random crops prepared with map: with num_proc=8 there is an eighth of the
# variety. Draw from a generator seeded with the row's number (with_indices=True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 dill==0.4.1 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import random

import datasets
import numpy as np
import torch

datasets.disable_progress_bars()
draws = {"random": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(1).item()}


def draw(row):
    return {name: make() for name, make in draws.items()}


if __name__ == "__main__":
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    rows = datasets.Dataset.from_dict({"x": list(range(6))})
    for processes in (1, 2):
        drawn = rows.map(draw, num_proc=processes)
        for name in draws:
            print(f"{processes} processes, {name}: {len(set(drawn[name][:]))} different numbers for 6 rows")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="1 processes, random: 6 different numbers for 6 rows
1 processes, numpy: 6 different numbers for 6 rows
1 processes, torch: 6 different numbers for 6 rows
2 processes, random: 6 different numbers for 6 rows
2 processes, numpy: 3 different numbers for 6 rows
2 processes, torch: 3 different numbers for 6 rows"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

#!/bin/bash
# torch 2.13.0: after one seed randn(15) and randn(16) have not one number in common; randn(20) and randn(40) share
# four.
#
# Guess: a seed fixes a stream of numbers, and randn(16) gives the first sixteen of it, so its first fifteen are those
# of randn(15), as with rand, and as with numpy's standard_normal.
# Seen: below sixteen numbers are drawn one by one, from sixteen on in blocks of sixteen, by another recipe; and where
# the count is no multiple of sixteen, the last sixteen are drawn anew. Only counts that are multiples of sixteen, or
# all below, share a beginning.
#
# Where it matters: "the same data, only more of it": a sample of 20 isn't the beginning of one of 40. Draw the greatest
# size and cut.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
import torch


def drawn(draw, count):
    torch.manual_seed(0)
    return draw(count)


def by_numpy(count):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(count))


for draw in (torch.randn, torch.rand, by_numpy):
    pairs = ((8, 15), (15, 16), (16, 32), (20, 40))
    print(draw.__name__, *(f"{few}:{(drawn(draw, few) == drawn(draw, many)[:few]).sum()}" for few, many in pairs))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
wanted="randn 8:8 15:0 16:16 20:4
rand 8:8 15:15 16:16 20:20
by_numpy 8:8 15:15 16:16 20:20"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

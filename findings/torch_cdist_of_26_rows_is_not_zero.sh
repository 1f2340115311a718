#!/bin/bash
# torch 2.13.0: a vector's distance to itself is 0 among 25 vectors and up to .3 among 26.
#
# Guess: cdist(x, x) has zeros on its diagonal, and the distance of two vectors is the same (but for the last digit)
# however many others are asked for with them.
# Seen: from 26 rows on the distance is computed as |x|² + |y|² − 2xy, which loses the digits if the vectors lie far
# from 0 and near to each other: 384 numbers around 10 with a copy that is moved by .02 are .02 apart with 25 rows and
# 0 or .2 apart with 26. compute_mode="donot_use_mm_for_euclid_dist" is right at any size; the documentation names the
# 25, and not what it costs.
#
# Where it matters: near duplicates among embeddings, codes in a codebook, tests on a few rows for code that runs on
# many.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch

torch.manual_seed(0)
x = 10 + torch.randn(100, 384)
near = x + 0.02 * torch.nn.functional.normalize(torch.randn(100, 384))
slow = "donot_use_mm_for_euclid_dist"
for rows in (25, 26, 100):
    for mode in ("default", slow):
        options = {"compute_mode": mode} if mode == slow else {}
        own = torch.cdist(x[:rows], x[:rows], **options).diagonal().max()
        pairs = torch.cdist(x[:rows], near[:rows], **options).diagonal()
        wrong = (pairs - 0.02).abs().max()
        print(f"{rows} rows, {mode}: to itself {'0' if own == 0 else 'over .05' if own > 0.05 else 'small'},", end=" ")
        print("to its neighbour", "right" if wrong < 1e-3 else "wrong by over .01" if wrong > 0.01 else "nearly right")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="25 rows, default: to itself 0, to its neighbour right
25 rows, donot_use_mm_for_euclid_dist: to itself 0, to its neighbour right
26 rows, default: to itself over .05, to its neighbour wrong by over .01
26 rows, donot_use_mm_for_euclid_dist: to itself 0, to its neighbour right
100 rows, default: to itself over .05, to its neighbour wrong by over .01
100 rows, donot_use_mm_for_euclid_dist: to itself 0, to its neighbour right"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

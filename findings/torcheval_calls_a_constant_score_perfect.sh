#!/bin/bash
# torcheval 0.0.7: a model that gives every candidate the same score has hit rate 1 and reciprocal rank 1.
#
# Guess: scores that tell nothing get what chance gets, or a rank by the candidates' order: with 100 candidates about
# .01 for k=1.
# Seen: the rank is the number of candidates with a greater score, so in a tie each one is first. Hit rate@1 is 1.00 for
# every target, and so is the reciprocal rank; multiclass_accuracy of the same library says .01 for k=1 and 1.00 for
# k=2. Sigmoids that are all rounded to 1 have the hit rate 1.
#
# Where it matters: retrieval and recommendation in low precision, saturated sigmoids, a model that collapsed: the
# broken one is the best in the table.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torcheval==0.0.7 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torcheval.metrics.functional import hit_rate, multiclass_accuracy, reciprocal_rank

target = torch.arange(100)
constant = torch.full((100, 100), 0.5)
print(f"constant: hit rate@1 {hit_rate(constant, target, k=1).mean():.2f}", end=", ")
print(f"reciprocal rank {reciprocal_rank(constant, target).mean():.2f}", end=", ")
print("accuracy", *(f"{multiclass_accuracy(constant, target, k=k):.2f}" for k in (1, 2)))
saturated = torch.sigmoid(20 + torch.randn(100, 100, generator=torch.Generator().manual_seed(0))).bfloat16().float()
print(f"saturated: hit rate@1 {hit_rate(saturated, target, k=1).mean():.2f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="constant: hit rate@1 1.00, reciprocal rank 1.00, accuracy 0.01 1.00
saturated: hit rate@1 1.00"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

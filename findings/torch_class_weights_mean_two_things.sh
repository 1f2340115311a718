#!/bin/bash
# torch 2.13.0: cross_entropy with class weights gives two losses for one target, as a number and as a one-hot row.
#
# Guess: class 2 and the row (0, 0, 1, 0) say the same, so the loss is the same, as it is without weights, and weights
# ten times as large change nothing, since the mean is a weighted one.
# Seen: with numbers the sum is divided by the weights of the targets, with rows by the count of rows. Weights (1, 2,
# 3, 4) give 2.5 times the loss, ten times the weights ten times the loss, and so the learning rate.
#
# Where it matters: whoever turns labels into rows for mixup, smoothing by hand or distillation, and keeps the
# weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
import torch.nn.functional as F

torch.manual_seed(0)
scores, labels = torch.randn(4, 4), torch.arange(4)
rows = F.one_hot(labels, 4).float()
for name, weight in (("none", None), ("1 to 4", torch.arange(1.0, 5.0)), ("10 to 40", torch.arange(10.0, 50.0, 10.0))):
    number, row = (F.cross_entropy(scores, target, weight=weight).item() for target in (labels, rows))
    print(f"weights {name}: row / number = {row / number:.3f}")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
wanted="weights none: row / number = 1.000
weights 1 to 4: row / number = 2.500
weights 10 to 40: row / number = 25.000"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

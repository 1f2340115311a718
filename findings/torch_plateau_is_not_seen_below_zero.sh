#!/bin/bash
# torch 2.13.0: ReduceLROnPlateau never lowers the rate for a metric that stays at -100, nor for one that gets worse
# from -100 on.
#
# Guess: a metric that doesn't change for longer than patience is a plateau, whatever its size: at 100, at 0, at -100;
# and a metric that gets worse with each epoch is so all the more.
# Seen: "better" in "min" mode is less than best * (1 - .0001), in "max" mode more than best * (1 + .0001). Where best
# is negative, both limits lie on its wrong side: -100 is less than -99.99, so each epoch is the best so far, and a loss
# that rises by .009 in each is, too. The formulas are in the documentation; that the metric must be positive isn't.
# Open as issues 38622 and 47513. threshold_mode="abs" is right.
#
# Where it matters: rewards, mean log-probabilities, the evidence lower bound, log-likelihoods of densities: a run in
# which the reward falls from -100 to -109 keeps its rate to the end.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau


def rate(values, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=2, **options)
    for value in values:
        scheduler.step(value)
    return f"{optimizer.param_groups[0]['lr']:.0e}"


for mode, worse in (("min", 0.009), ("max", -0.009)):
    falling = [-100 + worse * epoch for epoch in range(1000)]
    for kind in ("rel", "abs"):
        options = dict(mode=mode, threshold_mode=kind)
        flat = [f"{value}: {rate([value] * 50, **options)}" for value in (100, 0, -0.001, -100)]
        print(mode, kind, "rate after 50 times", *flat, "after 1,000 worse:", rate(falling, **options))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="min rel rate after 50 times 100: 1e-08 0: 1e-08 -0.001: 1e+00 -100: 1e+00 after 1,000 worse: 1e+00
min abs rate after 50 times 100: 1e-08 0: 1e-08 -0.001: 1e-08 -100: 1e-08 after 1,000 worse: 1e-08
max rel rate after 50 times 100: 1e-08 0: 1e-08 -0.001: 1e+00 -100: 1e+00 after 1,000 worse: 1e+00
max abs rate after 50 times 100: 1e-08 0: 1e-08 -0.001: 1e-08 -100: 1e-08 after 1,000 worse: 1e-08"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

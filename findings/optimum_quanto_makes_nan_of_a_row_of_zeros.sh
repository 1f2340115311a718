#!/bin/bash
# optimum-quanto 0.2.7: with qfloat8 weights a row of zeros is a row of NaN; with qint8 it stays zeros.
#
# Guess: a weight of 0 is 0 in every type, so an output that is always 0 stays so, as with qint8.
# Seen: a row's scale is its largest size divided by the largest number of the type: 0. As an int8 the NaN of 0/0 is a 0
# again; in float8 it stays NaN, in each of the three types. quantize() and freeze() say nothing, and the layers after
# it carry the NaN on, so one such row among a million makes every logit NaN.
#
# Where it matters: pruned rows, dead units, padding rows of an enlarged vocabulary whose head is its own matrix, and
# layers that begin at zero (LoRA's B, the last layer of a residual branch) before they were trained.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check optimum-quanto==0.2.7 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from optimum.quanto import freeze, qfloat8_e4m3fn, qfloat8_e4m3fnuz, qfloat8_e5m2, qint8, quantize

for kind in (qint8, qfloat8_e4m3fn, qfloat8_e4m3fnuz, qfloat8_e5m2):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8, bias=False), torch.nn.Linear(8, 3, bias=False))
    with torch.no_grad():
        model[0].weight[2] = 0
    quantize(model, weights=kind)
    freeze(model)
    with torch.no_grad():
        inner = model[0](torch.ones(1, 16))[0]
        outer = model(torch.ones(1, 16))[0]
    print(f"{kind.name}: output of the row of zeros {inner[2].item():.1f}, NaN among", end=" ")
    print(f"the 8 outputs {inner.isnan().sum().item()}, among the next layer's 3 {outer.isnan().sum().item()}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="qint8: output of the row of zeros 0.0, NaN among the 8 outputs 0, among the next layer's 3 0
qfloat8_e4m3fn: output of the row of zeros nan, NaN among the 8 outputs 1, among the next layer's 3 3
qfloat8_e4m3fnuz: output of the row of zeros nan, NaN among the 8 outputs 1, among the next layer's 3 3
qfloat8_e5m2: output of the row of zeros nan, NaN among the 8 outputs 1, among the next layer's 3 3"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

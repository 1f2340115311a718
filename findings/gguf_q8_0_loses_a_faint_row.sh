#!/bin/bash
# gguf 0.19.0: eight bits lose what four bits keep: a block of weights below 3.8e-6 is zeros in Q8_0, and not in Q4_0.
#
# Guess: Q8_0's relative error is the same at every scale (.005 on normal numbers), and smaller than Q4_0's (.09).
# Seen: at 1e-5 the two are about equal, at 1e-6 Q8_0's is 1.00 and Q4_0's .11. A block's scale is stored in float16.
# It is the greatest weight divided by 127 in Q8_0, by 8 in Q4_0, so Q8_0 falls below float16's least number sixteen
# times earlier. MXFP4's scale is a power of two: .11 at every size.
#
# Where it matters: rows that were hardly trained, an adapter after its first steps, gradients packed into these
# types.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
from gguf import GGMLQuantizationType, quants

weights = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
for size in (1.0, 1e-5, 1e-6):
    scaled = weights * np.float32(size)
    told = []
    for name in ("Q8_0", "Q4_0", "MXFP4"):
        kind = GGMLQuantizationType[name]
        back = quants.dequantize(quants.quantize(scaled, kind), kind)
        told.append(f"{name} {np.linalg.norm((back - scaled) / size) / np.linalg.norm(weights):.3f}")
    print(f"{size:g}:", *told)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
wanted="1: Q8_0 0.005 Q4_0 0.086 MXFP4 0.115
1e-05: Q8_0 0.094 Q4_0 0.086 MXFP4 0.115
1e-06: Q8_0 0.999 Q4_0 0.106 MXFP4 0.113"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

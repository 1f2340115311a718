#!/bin/bash
# torch 2.13.0: F.normalize in float16 makes NaN of zeros and zeros of large numbers; two equal vectors have the
# cosine 0.
#
# Guess: F.normalize and F.cosine_similarity divide by max(norm, eps), so a row of zeros stays zeros, with the cosine
# 0; and a vector of 768 numbers that are 3,000 each, which float16 can hold, comes out with length 1 and has the
# cosine 1 with itself. The types differ in the last digits only.
# Seen: in float32 and bfloat16, so. In float16 eps (1e-12, 1e-8) is 0, and 0 / 0 is NaN; the norm of the large
# vector, 83,138, is inf, so the normalized vector is zeros and the cosine with itself 0. Nothing is said.
#
# Where it matters: embeddings in half precision: an empty text pooled to zeros puts NaN into the index, and a vector
# with large activations becomes unlike everything. Normalize in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
import torch.nn.functional as F

for name in ("float32", "bfloat16", "float16"):
    ones = torch.ones(1, 768, dtype=getattr(torch, name))
    for what, row in (("zeros", 0 * ones), ("3000s", 3000 * ones)):
        length = F.normalize(row).float().norm()
        print(f"{name}: {what}: length {length:.2f}, cosine with itself {F.cosine_similarity(row, row).item():.2f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="float32: zeros: length 0.00, cosine with itself 0.00
float32: 3000s: length 1.00, cosine with itself 1.00
bfloat16: zeros: length 0.00, cosine with itself 0.00
bfloat16: 3000s: length 1.00, cosine with itself 1.00
float16: zeros: length nan, cosine with itself nan
float16: 3000s: length 0.00, cosine with itself 0.00"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

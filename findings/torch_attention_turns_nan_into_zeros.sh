#!/bin/bash
# torch 2.13.0: on a CPU scaled_dot_product_attention gives zeros for a query of NaN if there are fewer than 16 keys.
#
# Guess: a query with a NaN in it has NaN as its output, as in the formula and as with 64 keys, however short the text
# is: what is broken stays visible.
# Seen: with 5 keys the output of that query is 0 at every place, in float32 and bfloat16, and everything after it is
# finite. With 16 keys and more (one register of this machine; 8 on older ones) and by SDPBackend.MATH it is NaN. The
# gradients are NaN in each case. A NaN in a key or a value always shows.
#
# Where it matters: tests with texts of five tokens, and assertions that outputs are finite: they pass, and the training
# at full length, or its first step backward, is NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)
for count, kind in [(5, torch.float32), (64, torch.float32), (5, torch.bfloat16)]:
    q, k, v = (torch.randn(1, 1, count, 8, dtype=kind) for _ in range(3))
    q[0, 0, 0, 0] = float("nan")
    q.requires_grad_()
    out = scaled_dot_product_attention(q, k, v)
    out.sum().backward()
    with sdpa_kernel(SDPBackend.MATH):
        formula = scaled_dot_product_attention(q, k, v)
    print(f"{count} keys, {kind}: {out[0, 0, 0, :2].tolist()}", end=", ")
    print("by MATH", formula[0, 0, 0, :2].tolist(), "gradient of the query", q.grad[0, 0, 0, :2].tolist())
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="5 keys, torch.float32: [0.0, 0.0], by MATH [nan, nan] gradient of the query [nan, nan]
64 keys, torch.float32: [nan, nan], by MATH [nan, nan] gradient of the query [nan, nan]
5 keys, torch.bfloat16: [0.0, 0.0], by MATH [nan, nan] gradient of the query [nan, nan]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

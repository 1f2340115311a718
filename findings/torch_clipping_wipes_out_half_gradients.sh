#!/bin/bash
# torch 2.13.0: clip_grad_norm_ makes finite float16 gradients 0 where their norm is above 65504.
#
# Guess: 10,000 gradients of 1,000 have the norm 100,000, and after clipping to 1 each is .01; or the call raises, as
# it does with error_if_nonfinite=True.
# Seen: the norm comes back in the gradients' type, so it is inf; 1 / inf is 0, and every gradient is 0. In bfloat16
# each is .01. Adam then moves the weights by its momentum alone, and no loss scaler notices: nothing is inf or NaN
# any more.
#
# Where it matters: float16 with a scaled loss: clip after unscaling, in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch

for dtype in (torch.float16, torch.bfloat16, torch.float32):
    parameter = torch.nn.Parameter(torch.zeros(10_000, dtype=dtype))
    parameter.grad = torch.full_like(parameter, 1000)
    norm = torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    print(f"{dtype}: norm {norm:.0e}, gradient {parameter.grad[0]:.4f}, finite {bool(parameter.grad.isfinite().all())}")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" | tee "$folder/told"
wanted="torch.float16: norm inf, gradient 0.0000, finite True
torch.bfloat16: norm 1e+05, gradient 0.0100, finite True
torch.float32: norm 1e+05, gradient 0.0100, finite True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

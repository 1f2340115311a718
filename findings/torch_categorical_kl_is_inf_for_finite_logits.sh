#!/bin/bash
# torch 2.13.0: the KL divergence of two Categorical distributions is inf where their logits say 200.
#
# Guess: Categorical keeps normalized logits, so kl_divergence(p, q) of finite logits is finite, as F.kl_div on
# log_softmax is: for logits (200, 0) and (0, 200) it is 200 nats, for float32 no number at all.
# Seen: inf. q's probabilities are looked at, not its logits; exp(-200) is 0 in float32, and where q has a 0 the
# divergence is set to inf. In float64 the same call gives 200.
#
# Where it matters: distillation and KL penalties on logits of a sure model. F.kl_div(log_q, log_p, log_target=True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

for dtype in (torch.float32, torch.float64):
    p, q = torch.tensor([200.0, 0.0], dtype=dtype), torch.tensor([0.0, 200.0], dtype=dtype)
    theirs = kl_divergence(Categorical(logits=p), Categorical(logits=q)).item()
    by_hand = F.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="sum").item()
    print(str(dtype), theirs, by_hand)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
if [ "$(cat "$folder/told")" = "$(printf 'torch.float32 inf 200.0\ntorch.float64 200.0 200.0')" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

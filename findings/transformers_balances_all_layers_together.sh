#!/bin/bash
# transformers 5.23.0: the load balancing loss of a mixture of experts calls four layers that use one expert each
# balanced.
#
# Guess: load_balancing_loss_func takes a tuple with the router's logits of each layer, since each layer has experts
# of its own: where every layer sends all its tokens to a single expert, the loss is as high as for one such layer, 4
# with four experts. A router that spreads its tokens evenly has 1, as in the paper it names (Switch, equations 4 to
# 6).
# Seen: the layers' counts and probabilities are added up first and multiplied then. If the layers collapsed onto the
# same expert the loss is 4; if each collapsed onto another one it is as low as for an even router. And an even router
# has top_k, not 1 (2 in Mixtral): the coefficient counts top_k times as much. (Asked in an issue in 2024; the
# function's documentation doesn't tell it.)
#
# Where it matters: whoever trains Mixtral, Qwen-MoE or a config of his own with this loss: it can fall to its least
# value while the experts of every layer are dead. Call it layer by layer, with (logits,), and take the mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

tokens, experts = 60, 4
to = 20 * torch.eye(experts)  # to[i]: a router's logits that are sure of expert i
routers = {
    "even": [torch.cat([to[i].repeat(tokens // experts, 1) for i in range(experts)])] * experts,
    "each layer one expert, the same": [to[0].repeat(tokens, 1) for i in range(experts)],
    "each layer one expert, another one": [to[i].repeat(tokens, 1) for i in range(experts)],
}
for name, layers in routers.items():
    together = load_balancing_loss_func(tuple(layers), experts, top_k=1)
    alone = [load_balancing_loss_func((layer,), experts, top_k=1) for layer in layers]
    print(f"{name}: together {together:.2f}, layer by layer {sum(alone) / experts:.2f}")
nearly = 0.01 * torch.randn(10_000, experts, generator=torch.Generator().manual_seed(0))
print("nearly even:", *(f"top_k {k}: {load_balancing_loss_func((nearly,), experts, top_k=k):.2f}" for k in (1, 2)))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="even: together 1.00, layer by layer 1.00
each layer one expert, the same: together 4.00, layer by layer 4.00
each layer one expert, another one: together 1.00, layer by layer 4.00
nearly even: top_k 1: 1.00 top_k 2: 2.00"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

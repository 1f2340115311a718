#!/bin/bash
# rotary-embedding-torch 0.9.1: with queries in bfloat16 the tokens 256 and 257 stand at the same place.
#
# Guess: the angles are computed in float32 (the function is kept out of autocast for that), and only the rotated
# vectors are rounded: an error of 1 % at every place, and 1,000 equal vectors come out as 1,000 different ones, as with
# the llama of transformers 5.23.0.
# Seen: the places are counted in the type of the queries. bfloat16 holds each integer up to 256 only, then every
# second, from 512 on every fourth: the places are rounded before the sine is taken, and neighbours get the same
# rotation. Under autocast with float32 queries all is right; the module's own type doesn't matter.
#
# Where it matters: a model trained in bfloat16 throughout, with texts longer than 256: order is lost in pairs and
# fours. Rotate q.float() and round afterwards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check rotary-embedding-torch==0.9.1 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from rotary_embedding_torch import RotaryEmbedding

torch.manual_seed(0)
same = torch.randn(1, 1, 1, 64).expand(1, 1, 1000, 64)
exact = RotaryEmbedding(64).rotate_queries_or_keys(same)[0, 0]
rotated = RotaryEmbedding(64).rotate_queries_or_keys(same.bfloat16())[0, 0]
print("different vectors of 1,000: rotated in float32, then rounded", len(exact.bfloat16().unique(dim=0)), end=", ")
print("rotated in bfloat16", len(rotated.unique(dim=0)))
print("as the place before:", [n for n in range(1, 263) if torch.equal(rotated[n], rotated[n - 1])], end=" ")
worst = (rotated.float() - exact).norm(dim=1) / exact.norm(dim=1)
print(f"error up to place 256 {worst[:257].max():.2f}, beyond {worst[257:].max():.2f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="different vectors of 1,000: rotated in float32, then rounded 1000, rotated in bfloat16 507
as the place before: [257, 260, 261] error up to place 256 0.00, beyond 0.44"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

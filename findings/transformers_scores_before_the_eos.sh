#!/bin/bash
# transformers 5.23.0: a reward model whose padding token is EOS doesn't score at the EOS, and heeds no attention
# mask.
#
# Guess: LlamaForSequenceClassification scores a text at its last token, the last place where attention_mask is 1. So
# with pad_token_id = eos_token_id, which is usual for models without a padding token, "5 6 7 EOS" is scored at EOS,
# as with any other padding token.
# Seen: the place is found by comparing the ids with pad_token_id, so EOS at the end counts as padding: the score is
# taken at 7, and is the same with and without EOS. And where the mask ends before the ids do, the place is one that
# the mask rules out. A comment in the code says the first; the forward's documentation says neither.
#
# Where it matters: rewards and judges. "Did the answer end?" can't be in the score, and a model trained with one
# padding token and served with EOS as the padding token gives other scores. Padding with a token of its own is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

eos = 2
sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@torch.no_grad()
def scored_at(pad, ids, mask=None):
    """The place whose hidden state gives the score."""
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, initializer_range=0.5, eos_token_id=eos, pad_token_id=pad, num_labels=1)
    model = LlamaForSequenceClassification(config).eval()
    ids, mask = torch.tensor([ids]), torch.tensor([mask or [1] * len(ids)])
    everywhere = model.score(model.model(ids, attention_mask=mask).last_hidden_state)[0, :, 0]
    return (everywhere - model(ids, attention_mask=mask).logits[0, 0]).abs().argmin().item()


for pad in (0, eos):
    print(f"pad_token_id {pad}: 5 6 7 EOS is scored at place {scored_at(pad, [5, 6, 7, eos])}")
print("mask 1 1 0 0: 5 6 7 8 is scored at place", scored_at(0, [5, 6, 7, 8], [1, 1, 0, 0]))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="pad_token_id 0: 5 6 7 EOS is scored at place 3
pad_token_id 2: 5 6 7 EOS is scored at place 2
mask 1 1 0 0: 5 6 7 8 is scored at place 3"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

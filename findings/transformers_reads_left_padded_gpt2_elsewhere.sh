#!/bin/bash
# transformers 5.23.0: GPT-2 gives a left-padded text other logits than the text alone, with the right attention mask;
# only generate() doesn't.
#
# Guess: model(ids, attention_mask=mask) ignores what is masked, on whichever side it stands, as it does for Llama,
# and as generate(), which asks for padding on the left, does for both.
# Seen: the positions are counted from the left edge of the batch, padding included, so a text behind three padding
# tokens is read as if it began at place 3: its logits move by about their own size. Llama's only look at distances
# and stay. generate() makes position_ids from the mask; forward doesn't. (GPT-2's page had the tip to pad on the
# right.)
#
# Where it matters: log-probabilities of prompts and answers in batches padded for generating (perplexity, DPO,
# rewards of a small model): they depend on the longest text in the batch. Pass position_ids = (mask.cumsum(1) -
# 1).clamp(min=0).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
own = {"vocab_size": 50, "initializer_range": 0.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
models = [
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **own)),
    LlamaForCausalLM(
        LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, **own)
    ),
]
text, padded = torch.tensor([[5, 6, 7]]), torch.tensor([[0, 0, 0, 5, 6, 7]])
mask = (padded > 0).long()
for model in models:
    model.eval()
    with torch.no_grad():
        alone = model(text).logits
        moved = {
            "forward": model(padded, attention_mask=mask).logits[:, 3:] - alone,
            "with position_ids": model(
                padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
            ).logits[:, 3:] - alone,
        }
        same = (
            model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False)[0, 6:].tolist()
            == model.generate(text, max_new_tokens=8, do_sample=False)[0, 3:].tolist()
        )
    for way, by in moved.items():
        size = (by.norm() / alone.norm()).item()
        told = "the same" if size < 1e-4 else "over a tenth" if size > 0.1 else "a little"
        print(f"{model.config.model_type} {way}: {told}")
    print(f"{model.config.model_type} generate: the same text: {same}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="gpt2 forward: over a tenth
gpt2 with position_ids: the same
gpt2 generate: the same text: True
llama forward: the same
llama with position_ids: the same
llama generate: the same text: True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

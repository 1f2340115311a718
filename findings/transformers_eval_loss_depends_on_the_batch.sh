#!/bin/bash
# transformers 5.23.0: Trainer.evaluate() of one model on the same texts gives another eval_loss for each
# per_device_eval_batch_size.
#
# Guess: eval_loss of a causal language model is the mean over the tokens that have a label, so that exp(eval_loss) is
# the perplexity; how many texts are in a batch changes the time only. (In training, sums of tokens have been counted so
# since gradient accumulation was mended.)
# Seen: the model's loss is a mean over the tokens of its batch, and these means are averaged, weighted by the texts of
# the batch. A text of 3 tokens counts as much as one of 60 where each has its batch, and by its tokens where they are
# in one. Only with all texts in one batch it is the mean over the tokens. Open as issue 39241.
#
# Where it matters: perplexities of two runs whose batches differ, since one machine is smaller, can't be compared, nor
# with those of a paper, which counts tokens; and load_best_model_at_end may choose another checkpoint. Add up losses
# and tokens oneself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 torch==2.13.0 \
    numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=50, pad_token_id=0, **shape))
with torch.no_grad():
    model.lm_head.weight.zero_()
    model.lm_head.weight[7] = model.model.norm.weight * 0 + 1  # the logits depend on the text, and only token 7's
texts = [[7, 7, 7], [3, 9, 4, 8, 5], [7] * 40, [11, 12, 13, 14], [5, 6, 8, 9] * 15]


def collate(chosen):
    longest = max(map(len, chosen))
    fill = [[0] * (longest - len(text)) for text in chosen]
    ids = torch.tensor([text + rest for text, rest in zip(chosen, fill)])
    seen = torch.tensor([[1] * len(text) + rest for text, rest in zip(chosen, fill)])
    return {"input_ids": ids, "attention_mask": seen, "labels": ids.masked_fill(seen == 0, -100)}


def evaluate(size):
    options = dict(per_device_eval_batch_size=size, use_cpu=True, report_to=[], disable_tqdm=True)
    arguments = TrainingArguments(tempfile.mkdtemp(), remove_unused_columns=False, **options)
    return Trainer(model, arguments, data_collator=collate).evaluate(texts)["eval_loss"]


with torch.no_grad():
    apart = [(model(**collate([text])).loss.item(), len(text) - 1) for text in texts]
by_tokens = sum(loss * count for loss, count in apart) / sum(count for _, count in apart)
by_texts = sum(loss for loss, _ in apart) / len(apart)
losses = {size: evaluate(size) for size in (1, 2, 3, 5)}
for size, loss in losses.items():
    means = {"tokens": by_tokens, "texts": by_texts}
    like = [name for name, mean in means.items() if abs(loss - mean) < 1e-4]
    print(f"batches of {size}:", *[f"the mean over the {name}" for name in like or ["batches only"]])
print("four different losses", min(abs(a - b) for i, a in losses.items() for j, b in losses.items() if i < j) > 0.01)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | grep -v "^{" | tee "$folder/told"
wanted="batches of 1: the mean over the texts
batches of 2: the mean over the batches only
batches of 3: the mean over the batches only
batches of 5: the mean over the tokens
four different losses True"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

#!/bin/bash
# torchmetrics 1.9.0: MRR, MAP, precision and recall of a perfect ranking are 0 where the scores are negative.
#
# Guess: only the order of the scores counts, as in nDCG and in every definition of these numbers: log-probabilities,
# negative distances and a reranker's logits are as good as probabilities.
# Seen: a relevant document whose score isn't above 0 counts as not found. With all scores lowered by 1 the ranking is
# the same, and reciprocal rank, average precision, precision and recall fall from 1 to 0; hit rate, R-precision, AUROC
# and nDCG stay. The functions' documentation calls the scores "estimated probabilities", the classes' "float
# predictions"; that 0 is a limit, neither says.
#
# Where it matters: evaluation of retrieval: with a reranker's logits the documents below 0 vanish, so MRR says that the
# model fails where nDCG says that it is perfect. Give scores.sigmoid(), or ranks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import torch
from torchmetrics.functional import retrieval

scores, relevant = torch.tensor([0.9, 0.8, 0.2, 0.1]), torch.tensor([1, 1, 0, 0])
names = ["reciprocal_rank", "average_precision", "precision", "recall", "hit_rate", "r_precision", "normalized_dcg"]
for name in names:
    metric, told = getattr(retrieval, f"retrieval_{name}"), {}
    for shift in (0.0, -0.5, -1.0):
        options = {"top_k": 2} if name in ("precision", "recall") else {}
        told[shift] = f"{metric(scores + shift, relevant, **options):.2f}"
    print(name, told)
mixed = torch.tensor([-0.1, -0.2, -0.3]), torch.tensor([1, 0, 0])
print(f"best of three, score -0.1: reciprocal rank {retrieval.retrieval_reciprocal_rank(*mixed):.2f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="reciprocal_rank {0.0: '1.00', -0.5: '1.00', -1.0: '0.00'}
average_precision {0.0: '1.00', -0.5: '1.00', -1.0: '0.00'}
precision {0.0: '1.00', -0.5: '1.00', -1.0: '0.00'}
recall {0.0: '1.00', -0.5: '1.00', -1.0: '0.00'}
hit_rate {0.0: '1.00', -0.5: '1.00', -1.0: '1.00'}
r_precision {0.0: '1.00', -0.5: '1.00', -1.0: '1.00'}
normalized_dcg {0.0: '1.00', -0.5: '1.00', -1.0: '1.00'}
best of three, score -0.1: reciprocal rank 0.00"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

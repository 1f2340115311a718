#!/bin/bash
# torchmetrics 1.9.0: the AUROC of log-likelihoods of whole texts is .5, whatever they are; scikit-learn 1.9.1 says 1.
#
# Guess: AUROC asks for the order only, so any real score will do, and adding up batches gives what one call gives.
# Seen: scores outside [0, 1] go through a sigmoid in float32 first. −210, −180, −150 and −120 all become 0, and ties
# are worth .5. In float64 it is 1. And each batch decides for itself: .9 in a batch within [0, 1] stays .9, and 1.5
# in the next becomes .82, so the order between batches is lost, and two updates give another AUROC than one call.
#
# Where it matters: detectors that rank texts by likelihood, entropy or margin. Give it ranks, or scores between 0 and
# 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 \
    scikit-learn==1.9.1
cat > "$folder/ask.py" <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC
from torchmetrics.functional.classification import binary_auroc

truth, scores = torch.tensor([0, 0, 1, 1]), torch.tensor([-210.0, -180.0, -150.0, -120.0])
theirs, double = binary_auroc(scores, truth).item(), binary_auroc(scores.double(), truth).item()
print(f"log-likelihoods: {theirs} float64 {double} scikit-learn {roc_auc_score(truth, scores)}")
truth, scores = torch.tensor([0, 0, 1, 1]), torch.tensor([0.1, 0.9, 1.2, 1.5])
batched = BinaryAUROC()
for part in (slice(2), slice(2, 4)):
    batched.update(scores[part], truth[part])
once, right = binary_auroc(scores, truth), roc_auc_score(truth, scores)
print(f"two batches: {batched.compute()} one call {once} scikit-learn {right}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="log-likelihoods: 0.5 float64 1.0 scikit-learn 1.0
two batches: 0.5 one call 1.0 scikit-learn 1.0"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

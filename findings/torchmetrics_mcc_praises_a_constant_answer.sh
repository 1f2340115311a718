#!/bin/bash
# torchmetrics 1.9.0: Matthews' correlation of a model that says "yes" to everything is 1.00 when 999 of 1,000 are
# yes.
#
# Guess: 0, as scikit-learn 1.9.1 gives: an answer that never changes correlates with nothing, and this is why one
# takes this number where classes are unequal.
# Seen: .998 at 999 of 1,000, .08 at 900, 0 at 500, and −.998 for a model that always says no. Where the denominator
# is 0 and there are two classes, a small number is put in its place, and what comes out grows with the imbalance.
# With num_classes=3 the same answers give 0.
#
# Where it matters: rare events (a filter, a detector of hallucinations): the useless model has the best score.
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
from sklearn.metrics import matthews_corrcoef
from torchmetrics.functional.classification import binary_matthews_corrcoef, multiclass_matthews_corrcoef

for right in (999, 900, 500):
    truth, yes = (torch.arange(1000) < right).long(), torch.ones(1000).long()
    two, no = binary_matthews_corrcoef(yes, truth), binary_matthews_corrcoef(1 - yes, truth)
    three = multiclass_matthews_corrcoef(yes, truth, num_classes=3)
    print(f"{right}: {two:.3f} {no:.3f} three classes {three:.3f} scikit-learn {matthews_corrcoef(truth, yes):.3f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="999: 0.998 -0.998 three classes 0.000 scikit-learn 0.000
900: 0.084 -0.084 three classes 0.000 scikit-learn 0.000
500: 0.000 0.000 three classes 0.000 scikit-learn 0.000"
told=$(sed 's/-0\.000/0.000/g' "$folder/told")
if [ "$told" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

#!/bin/bash
# torch 2.13.0, numpy 2.4.6: allclose(an empty answer, a column of right ones) is True.
#
# Guess: a comparison of no numbers with five numbers is False or an error: their shapes differ, and zeros(3) against
# ones(5) is an error, too.
# Seen: the two are broadcast: (0,) and (5, 1) make (5, 0), in which nothing differs. torch.allclose and numpy.allclose
# say True, F.mse_loss gives NaN with a warning only. numpy's assert_allclose refuses the column and takes the empty
# answer for a single number (5.0). torch.testing.assert_close refuses all.
#
# Where it matters: autograded exercises and tests whose right answer has a last dimension of 1: logits of a reward
# model, keepdim=True. A function that returns empty tensors passes. Compare the shapes first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import warnings

import numpy as np
import torch

warnings.filterwarnings("ignore")


def passes(check, *pair):
    try:
        check(*pair)
        return True
    except (AssertionError, RuntimeError, ValueError):
        return False


nothing, column, right = np.zeros(0), np.ones((5, 1)), np.float64(5)
for name, wanted in {"a column": column, "a number": right}.items():
    pair = torch.tensor(nothing), torch.tensor(wanted)
    print(f"{name}: torch.allclose {torch.allclose(*pair)}, numpy.allclose {np.allclose(nothing, wanted)}", end=", ")
    print(f"assert_allclose passes {passes(np.testing.assert_allclose, nothing, wanted)}", end=", ")
    print(f"assert_close passes {passes(torch.testing.assert_close, *pair)}")
print("three zeros against five ones:", passes(torch.allclose, torch.zeros(3), torch.ones(5)))
print("loss:", torch.nn.functional.mse_loss(torch.tensor(nothing), torch.tensor(column)).item())
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="a column: torch.allclose True, numpy.allclose True, assert_allclose passes False, assert_close passes False
a number: torch.allclose True, numpy.allclose True, assert_allclose passes True, assert_close passes False
three zeros against five ones: False
loss: nan"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

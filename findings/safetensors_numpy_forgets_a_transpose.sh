#!/bin/bash
# safetensors 0.8.0: safetensors.numpy writes a transposed array in the order of its memory, under the transposed
# shape.
#
# Guess: save_file({"w": a.T}) either stores a.T, as numpy.save does, or refuses it, as safetensors.torch does with a
# tensor that isn't contiguous (ValueError).
# Seen: no error, and another matrix: the numbers of a, read row by row, cut into rows of the new length. The same
# holds for every second column of a, and for an array in Fortran's order. np.ascontiguousarray() before saving mends
# it.
#
# Where it matters: weights turned around between two layouts (GPT-2's Conv1D is the transpose of Linear). Shapes fit,
# the file loads without a word, and the model is ruined.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

a = np.arange(12, dtype=np.float32).reshape(3, 4)
ways = {"as it is": a, "transposed": a.T, "every second column": a[:, ::2], "Fortran": np.asfortranarray(a)}
ways["transposed, copied"] = np.ascontiguousarray(a.T)
for name, array in ways.items():
    save_file({"w": array}, sys.argv[1] + "/w.safetensors")
    back = load_file(sys.argv[1] + "/w.safetensors")["w"]
    print(f"{name}: {back.shape == array.shape} {np.array_equal(back, array)} {back[1].tolist()}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" | tee "$folder/told"
wanted="as it is: True True [4.0, 5.0, 6.0, 7.0]
transposed: True False [3.0, 4.0, 5.0]
every second column: True False [2.0, 3.0]
Fortran: True False [5.0, 9.0, 2.0, 6.0]
transposed, copied: True True [1.0, 5.0, 9.0]"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

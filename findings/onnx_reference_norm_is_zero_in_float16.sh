#!/bin/bash
# onnx 1.23.2: the ReferenceEvaluator's LayerNormalization of (1000, −1000, 500, 0) in float16 is 0, 0, 0, 0.
#
# Guess: the operator's attribute stash_type says in which type mean and variance are computed, and its default is
# float32, so float16 gives the numbers of float32, rounded; and where runtime and reference differ, the reference is
# right.
# Seen: the reference squares in float16, where 1000² is inf, and divides by it. onnxruntime 1.32.0 gives 1.184,
# −1.521, .507, −.169, which is right. RMSNormalization (opset 23) is the same.
#
# Where it matters: whoever checks an exported float16 model against the reference takes the right one for wrong.
# Activations of this size are common in trained transformers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

for name in ("LayerNormalization", "RMSNormalization"):
    sizes = {"x": [1, 4], "scale": [4], "y": [1, 4]}
    x, scale, y = (helper.make_tensor_value_info(key, TensorProto.FLOAT16, size) for key, size in sizes.items())
    graph = helper.make_graph([helper.make_node(name, ["x", "scale"], ["y"])], "g", [x, scale], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"x": np.float16([[1000, -1000, 500, 0]]), "scale": np.ones(4, np.float16)}
    for who, run in (("runtime", session.run), ("reference", ReferenceEvaluator(model).run)):
        print(name, who, *(f"{value + 0:.2f}" for value in run(None, given)[0][0].astype(float)))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="LayerNormalization runtime 1.18 -1.52 0.51 -0.17
LayerNormalization reference 0.00 0.00 0.00 0.00
RMSNormalization runtime 1.33 -1.33 0.67 0.00
RMSNormalization reference 0.00 0.00 0.00 0.00"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

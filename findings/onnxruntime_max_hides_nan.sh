#!/bin/bash
# onnxruntime 1.32.0: the maximum of (1, NaN, 2) is 2 and its place is 2; of (NaN, 1, 2) it is NaN and 0.
#
# Guess: ReduceMax and ArgMax hand a NaN on, wherever it stands, as torch.amax, numpy and onnx 1.23.2's own
# ReferenceEvaluator do.
# Seen: the runtime hands it on only where it stands first. Anywhere else it is passed over: 2, at place 2. The
# operator Max of two tensors does hand it on.
#
# Where it matters: greedy decoding by ArgMax goes on writing from logits that are partly NaN, and a guard that looks
# at the greatest value sees nothing. Sum them, or use IsNaN.
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

x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
kinds = {"ReduceMax": TensorProto.FLOAT, "ArgMax": TensorProto.INT64}
outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
nodes = [helper.make_node(name, ["x"], [name]) for name in kinds]
graph = helper.make_graph(nodes, "g", [x], outputs)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
for row in ([1, np.nan, 2], [np.nan, 1, 2]):
    given = {"x": np.float32(row)}
    for name, run in (("runtime", session.run), ("reference", ReferenceEvaluator(model).run)):
        print(row, name, *(each.item() for each in run(None, given)))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" 2> /dev/null | tee "$folder/told"
wanted="[1, nan, 2] runtime 2.0 2
[1, nan, 2] reference nan 1
[nan, 1, 2] runtime nan 0
[nan, 1, 2] reference nan 0"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

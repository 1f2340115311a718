#!/bin/bash
# onnx 1.23.2: convert_version() from opset 13 to 11 makes a softmax over one dimension a softmax over two, without a
# word.
#
# Guess: the converted model gives the same numbers, or convert_version raises, as it does for Hardmax on this way ("No
# Adapter"): Softmax meant something else before opset 13, and on the way up the converter knows it (it writes Flatten
# and Reshape around it).
# Seen: on the way down only the number of the opset is changed: with axis=1 of (2, 3, 4) opset 11 flattens the last two
# dimensions, and each text's weights sum to 1 over both instead of 1 for each column. LogSoftmax the same. Hardmax on
# the way up, 11 to 13, and a linear Resize from 10 to 13 come out other, too. axis=-1 is safe.
#
# Where it matters: models for phones and accelerators whose runtime stops at opset 11 or 12: attention whose keys don't
# lie in the last dimension. The checker passes. Run both models on one input.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, version_converter

x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


def run(model):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def convert(kind, axis, source, target):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"], axis=axis)], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", source)], ir_version=8)
    try:
        new = version_converter.convert_version(model, target)
    except RuntimeError:
        return "refused"
    checker.check_model(new, full_check=True)
    old, changed = run(model), run(new)
    sums = [f"{y.sum(axis)[0, 0]:.2f}" for y in (old, changed)]
    return f"same {np.allclose(old, changed)}, a sum over the axis {sums[0]} before, {sums[1]} after"


for case in [("Softmax", 1, 11, 13), ("Softmax", 1, 13, 11), ("Softmax", -1, 13, 11), ("Hardmax", 1, 11, 13)]:
    print(*case, convert(*case))
print("Hardmax 1 13 11", convert("Hardmax", 1, 13, 11))
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="Softmax 1 11 13 same True, a sum over the axis 0.14 before, 0.14 after
Softmax 1 13 11 same False, a sum over the axis 1.00 before, 0.14 after
Softmax -1 13 11 same True, a sum over the axis 1.00 before, 1.00 after
Hardmax 1 11 13 same False, a sum over the axis 0.00 before, 1.00 after
Hardmax 1 13 11 refused"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

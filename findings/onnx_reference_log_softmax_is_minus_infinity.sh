#!/bin/bash
# onnx 1.23.2: the ReferenceEvaluator's LogSoftmax of the logits (0, 110) is -inf for the first; in float16 from a
# difference of 18 on.
#
# Guess: LogSoftmax is there to be computed without the exponential that vanishes: -110 in float32 and -20 in float16,
# as onnxruntime 1.32.0 gives; and a cross-entropy of finite logits is finite.
# Seen: the reference takes the logarithm of the softmax, in the type of the input: what is below 1e-45 (in float16
# below 3e-8) is 0, and its logarithm -inf. SoftmaxCrossEntropyLoss does the same, so its loss is inf.
#
# Where it matters: an exported model is checked against the reference because that is the one that is right. A language
# model's logits differ by more than 18 for most of the vocabulary, so its float16 log-probabilities are -inf there, a
# comparison fails, and the fault is looked for in the runtime.
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

for kind in (np.float32, np.float16):
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ends = [helper.make_tensor_value_info(name, number, [1, 2]) for name in "xy"]
    labels = helper.make_tensor_value_info("label", TensorProto.INT64, [1])
    loss = helper.make_tensor_value_info("loss", number, [])
    graphs = {
        "LogSoftmax": helper.make_graph([helper.make_node("LogSoftmax", ["x"], ["y"])], "g", ends[:1], ends[1:]),
        "SoftmaxCrossEntropyLoss": helper.make_graph(
            [helper.make_node("SoftmaxCrossEntropyLoss", ["x", "label"], ["loss"])], "g", [ends[0], labels], [loss]
        ),
    }
    for op, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        runtime = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for other in (10, 20, 110):
            feeds = {"x": np.array([[0, other]], kind)} | ({"label": np.array([0])} if "Loss" in op else {})
            with np.errstate(all="ignore"):
                told = [np.ravel(made.run(None, feeds)[0])[0] for made in (ReferenceEvaluator(model), runtime)]
            print(op, kind.__name__, f"logits 0 and {other}: reference {told[0]:.0f}, onnxruntime {told[1]:.0f}")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="LogSoftmax float32 logits 0 and 10: reference -10, onnxruntime -10
LogSoftmax float32 logits 0 and 20: reference -20, onnxruntime -20
LogSoftmax float32 logits 0 and 110: reference -inf, onnxruntime -110
SoftmaxCrossEntropyLoss float32 logits 0 and 10: reference 10, onnxruntime 10
SoftmaxCrossEntropyLoss float32 logits 0 and 20: reference 20, onnxruntime 20
SoftmaxCrossEntropyLoss float32 logits 0 and 110: reference inf, onnxruntime 110
LogSoftmax float16 logits 0 and 10: reference -10, onnxruntime -10
LogSoftmax float16 logits 0 and 20: reference -inf, onnxruntime -20
LogSoftmax float16 logits 0 and 110: reference -inf, onnxruntime -110
SoftmaxCrossEntropyLoss float16 logits 0 and 10: reference 10, onnxruntime 10
SoftmaxCrossEntropyLoss float16 logits 0 and 20: reference inf, onnxruntime 20
SoftmaxCrossEntropyLoss float16 logits 0 and 110: reference inf, onnxruntime 110"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

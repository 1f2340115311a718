#!/bin/bash
# loralib 0.1.2: a state_dict taken in eval() and loaded into a new model adds the update a second time.
#
# Guess: state_dict() and load_state_dict() give the same outputs in a new model, in whichever mode they are called, as
# in every module.
# Seen: eval() adds the update to the weight itself, and the state holds both the sum and the update; that it was added
# is an attribute which isn't saved. The new model is in training mode, so it adds the update again: in training, and in
# eval() as well. Loaded into a model in eval() it is right, until that one is trained: then the update is taken away
# from the sum. The README tells of the merging, and recommends lora_state_dict() without saying why.
#
# Where it matters: the usual loop evaluates and then saves the best checkpoint. lora_state_dict() of the updates alone,
# or model.train() before state_dict(), is safe.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check loralib==0.1.2 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import loralib
import torch

torch.manual_seed(0)
model, x = loralib.Linear(8, 8, r=2), torch.randn(3, 8)
torch.nn.init.normal_(model.lora_B)
frozen = torch.nn.functional.linear(x, model.weight, model.bias)
update = (model(x) - frozen).detach()
for saved in ("train", "eval"):
    model.train(saved == "train")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = loralib.Linear(8, 8, r=2)
    loaded.load_state_dict(state)
    times = [((loaded(x) - frozen) * update).sum() / (update * update).sum()]
    loaded.eval()
    times.append(((loaded(x) - frozen) * update).sum() / (update * update).sum())
    print(f"saved in {saved}: the update is in it {times[0]:.2f} times, after eval() {times[1]:.2f} times")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="saved in train: the update is in it 1.00 times, after eval() 1.00 times
saved in eval: the update is in it 2.00 times, after eval() 2.00 times"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

#!/bin/bash
# torch 2.13.0: the table that Schedule1F1B gives for pictures isn't what it runs: on the last rank it begins with
# micro-batch 1 and ends with one that doesn't exist.
#
# Guess: get_schedule_ops("1F1B", 2, 3) of torch.distributed.pipelining._schedule_visualizer lists for the last rank
# F0 B0 F1 B1 F2 B2, which is what Schedule1F1B runs there.
# Seen: it lists F1 B0 F2 B1 F3 B2. The same schedule's step, on a stage that only listens, runs F0 B0 F1 B1 F2 B2.
#
# Where it matters: in timelines drawn from the table, and for whoever takes the table as the definition of 1F1B.
# Training isn't affected. (Both names with an underscore are private: they may change.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --extra-index-url https://download.pytorch.org/whl/cpu \
    torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
from types import SimpleNamespace

from torch.distributed.pipelining import Schedule1F1B
from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

STAGES, MICRO = 2, 3
table = [a for a in get_schedule_ops("1F1B", STAGES, MICRO)[-1] if a.computation_type.value in ("F", "B")]
print("listed:", *(f"{a.computation_type.value}{a.microbatch_index}" for a in table))

ran = []
stage = SimpleNamespace(
    stage_index=STAGES - 1,
    forward_one_chunk=lambda i, *_, **__: ran.append(f"F{i}"),
    backward_one_chunk=lambda i, **_: ran.append(f"B{i}"),
    perform_reduce_grad=lambda _: None,
    **{f"get_{way}_{what}_ops": lambda i: [] for way in ("fwd", "bwd") for what in ("recv", "send")},
)
runs = SimpleNamespace(
    _stage=stage,
    _num_stages=STAGES,
    _n_microbatches=MICRO,
    _check_inputs=lambda *_: ([()] * MICRO, [{}] * MICRO),
    scale_grads=True,
    **dict.fromkeys(("_initialize_stage", "_maybe_compute_loss", "_maybe_get_loss", "_update_losses"), lambda *_: 0),
)
Schedule1F1B._step_microbatches(runs)
print("run:", *ran)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
if [ "$(cat "$folder/told")" = "$(printf 'listed: F1 B0 F2 B1 F3 B2\nrun: F0 B0 F1 B1 F2 B2')" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

"""labkit.Flops counts as torch's own counter does, without what takes seconds to import; and exercises use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import autograde.exercises

COUNTS = """
import sys
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from labkit.flops import Flops

model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3))
x = torch.randn(2, 5, 8)


def work():
    with torch.inference_mode():
        model(x)
    model(x.clone().requires_grad_()).sum().backward()
    torch.einsum("bij,bjk->bik", x, x.mT)


with Flops() as ours:
    work()
alone = "torch._dynamo" not in sys.modules
with FlopCounterMode(display=False) as theirs:
    work()
print(alone, "torch._dynamo" in sys.modules, 0 < ours.get_total_flops() == theirs.get_total_flops())
print(ours.get_flop_counts() == theirs.get_flop_counts())
"""


def test_it_counts_the_same_and_imports_no_compiler():
    found = subprocess.run([sys.executable, "-c", COUNTS], capture_output=True, text=True)
    assert found.stdout.split() == ["True", "True", "True", "True"], found.stderr


def test_no_exercise_counts_with_torch_s_own():
    """Each check of a student is a process of its own: there it would import the compiler again."""
    texts = {path: path.read_text(encoding="utf-8") for path in Path(autograde.exercises.__file__).parent.rglob("*.py")}
    assert any("labkit.flops" in text for text in texts.values())
    assert [str(path) for path, text in texts.items() if "FlopCounterMode" in text] == []

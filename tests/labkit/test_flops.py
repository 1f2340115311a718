"""labkit.Flops counts as torch's own counter does where attention is plain, and imports no compiler; who uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import autograde.exercises
from labkit.flops import Flops

COUNTS = """
import sys
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
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
torch.backends.mha.set_fastpath_enabled(False)
with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as theirs:
    work()
print(alone, "torch._dynamo" in sys.modules, 0 < ours.get_total_flops() == theirs.get_total_flops())
print(ours.get_flop_counts() == theirs.get_flop_counts())
"""


def test_it_counts_the_same_and_imports_no_compiler():
    found = subprocess.run([sys.executable, "-c", COUNTS], capture_output=True, text=True)
    assert found.stdout.split() == ["True", "True", "True", "True"], found.stderr


def test_attention_and_a_whole_layer_count_on_a_cpu():
    q = torch.randn(2, 3, 7, 4)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    counts = []
    for mode in (layer.train(), layer.eval()):
        with torch.no_grad(), Flops() as counter:
            mode(torch.randn(2, 5, 8))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 2 * 2 * 5 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16) + 2 * 2 * 2 * 5 * 5 * 8
    with Flops() as counter:
        F.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * 2 * 2 * 3 * 7 * 7 * 4
    assert torch.backends.mha.get_fastpath_enabled()


def test_no_chapter_leaves_attention_out():
    """torch's own counter gives attention 0 on a CPU: it stands only where no attention kernel can be inside."""
    plain = {
        "01_transformer/02_encoder_decoder": "attention written by hand",
        "01_transformer/04_rope": "on the meta device, where attention has no kernel",
        "01_transformer/06_efficient_attention": "attention written by hand, or transformers' eager one",
        "02_applications/09_forgetting": "a network without attention",
        "02_applications/12_quantization": "one product of matrices",
        "03_data_parallel/07_pipeline_parallel": "layers in training mode with dropout in their attention",
    }
    folder = Path(autograde.exercises.__file__).parents[2] / "solutions"
    found = [path for path in folder.rglob("*.py") if "FlopCounterMode(" in path.read_text(encoding="utf-8")]
    assert {path.relative_to(folder).with_suffix("").as_posix() for path in found} == set(plain)


def test_no_exercise_counts_with_torch_s_own():
    """Each check of a student is a process of its own: there it would import the compiler again."""
    texts = {path: path.read_text(encoding="utf-8") for path in Path(autograde.exercises.__file__).parent.rglob("*.py")}
    assert any("labkit.flops" in text for text in texts.values())
    assert [str(path) for path, text in texts.items() if "FlopCounterMode" in text] == []

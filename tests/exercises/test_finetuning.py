"""The references of fine-tuning against the libraries that learners will use: peft, and bitsandbytes where it is."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from autograde.exercises import find
from autograde.exercises.applications.finetuning.LoRALinear import LoRA
from autograde.exercises.applications.finetuning.shared import NF4, unpacked

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lora_says_and_merges_what_peft_does(dtype):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    plain = nn.Linear(20, 12, dtype=dtype)
    ours = LoRA(nn.Linear(20, 12, dtype=dtype), 3, 12)
    ours.linear.load_state_dict(plain.state_dict())
    model = get_peft_model(nn.Sequential(plain), LoraConfig(r=3, lora_alpha=12, target_modules=["0"]))
    theirs = model.base_model.model[0]
    first = theirs.lora_A["default"].weight
    assert first.shape == ours.A.shape and first.dtype == ours.A.dtype == torch.float32
    assert max(float(first.abs().max()), float(ours.A.abs().max())) <= 20**-0.5
    assert not theirs.lora_B["default"].weight.any() and not ours.B.any()
    with torch.no_grad():
        ours.A.copy_(first)
        theirs.lora_B["default"].weight.normal_()
        ours.B.copy_(theirs.lora_B["default"].weight)
    x = torch.randn(5, 20, dtype=dtype)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(ours(x), theirs(x), **close)
    merged = ours.merged()
    theirs.merge()
    torch.testing.assert_close(merged.weight, theirs.base_layer.weight, **close)
    assert merged.weight.dtype == dtype


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes isn't installed: `pip install --target FOLDER --no-deps bitsandbytes==0.50.2` and the folder "
    "on PYTHONPATH run this test.",
)
def test_four_bits_are_those_of_bitsandbytes():
    import bitsandbytes
    import bitsandbytes.functional as bnb

    torch.manual_seed(0)
    weight = torch.randn(24, 128)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    packed, scales = find("nf4_quantize").alternatives[0](weight, 64)
    torch.testing.assert_close(state.absmax, scales)
    assert torch.equal(theirs.flatten(), packed)
    back = (torch.tensor(NF4)[unpacked(packed)].view(-1, 64) * scales[:, None]).view(24, 128)
    torch.testing.assert_close(bnb.dequantize_4bit(theirs, state), back)
    x, A, B = torch.randn(3, 128), torch.zeros(4, 128), torch.zeros(24, 4)
    ours = find("qlora_forward").alternatives[0](x, packed, scales, A, B, 8)
    torch.testing.assert_close(ours, bitsandbytes.matmul_4bit(x, theirs.t(), state), rtol=1e-4, atol=1e-4)

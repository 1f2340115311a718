"""What exercises of the chapter finetuning share."""

from __future__ import annotations

import torch

# QLoRA, arXiv:2305.14314, appendix E: the sixteen numbers of NormalFloat4.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def unpacked(packed, high_first=True):
    """Two codes from each byte, the first one from the high half."""
    high, low = packed >> 4, packed & 15
    return torch.stack([high, low] if high_first else [low, high], -1).flatten().long()


def packed_pairs(codes, high_first=True):
    first, second = codes.view(-1, 2).unbind(-1)
    return (first * 16 + second if high_first else second * 16 + first).to(torch.uint8)

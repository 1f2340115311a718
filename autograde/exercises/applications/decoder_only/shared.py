"""What exercises of the chapter decoder_only share."""

from __future__ import annotations

import torch

IGNORED = -100

VOCABULARY = 100

TOP = 90  # text has ids below it, sentinels above


def token_ids(g, *shape):
    return torch.randint(10, TOP, shape, generator=g)

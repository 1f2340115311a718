"""What exercises of the chapter position_encodings share."""

from __future__ import annotations

import torch


def is_wide(out, one, call):
    return out.dtype in (torch.float32, torch.float64) or f"float32 or float64 is asked for, and {out.dtype} came out"

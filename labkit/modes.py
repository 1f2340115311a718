"""A base for whatever listens to torch's operators."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Listener(TorchDispatchMode):
    """A TorchDispatchMode whose first operator does not import torch's compiler, which takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

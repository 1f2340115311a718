"""What the notebooks import besides the field's own libraries: models, text, figures, ranks and progress.

Every name is loaded when it is first used, so `import labkit` is instant and a part works without the libraries that
only the other parts need.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_HOME = {
    "smollm": "models",
    "minilm": "models",
    "batches": "models",
    "chat_model": "chat",
    "Reply": "chat",
    "EndpointFailed": "chat",
    "ModelMissing": "errors",
    "shakespeare": "text",
    "docstrings": "corpus",
    "questions": "corpus",
    "embedded_docstrings": "corpus",
    "Passage": "corpus",
    "Question": "corpus",
    "own": "parts",
    "PartMissing": "parts",
    "figure": "figures",
    "show": "figures",
    "knobs": "figures",
    "COLORS": "figures",
    "SEQUENTIAL": "figures",
    "DIVERGING": "figures",
    "launch": "launch",
    "RankError": "failure",
    "evidence": "experiment",
    "interval": "experiment",
    "wilson": "experiment",
    "NoEvidence": "experiment",
    "verdict": "verdict",
    "show_map": "course_map",
    "gpu_report": "gpu",
    "record_memory": "memory",
    "give_back": "memory",
    "record_traffic": "traffic",
    "Message": "traffic",
}
__all__ = list(_HOME) + ["progress"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"labkit.{_HOME[name]}"), name)
    elif name == "progress":
        value = importlib.import_module("labkit.progress")
    else:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps `labkit.launch` and `labkit.verdict` functions: importing their modules would put the modules there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("launch", "verdict") and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

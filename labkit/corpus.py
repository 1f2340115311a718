"""PyTorch's own installed documentation as a corpus to search: its docstrings, and questions about them."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Passage", "docstrings"]

# Named one by one: what else hangs on `torch` depends on what was imported before.
_MODULES = """
torch torch.amp torch.autograd torch.autograd.forward_ad torch.autograd.functional torch.autograd.graph
torch.autograd.profiler torch.backends.cudnn torch.compiler torch.cuda torch.distributed
torch.distributed.checkpoint torch.distributed.fsdp torch.distributed.optim torch.distributed.pipelining
torch.distributed.tensor torch.distributed.tensor.parallel torch.distributions torch.export torch.fft torch.func
torch.futures torch.fx torch.hub torch.jit torch.library torch.linalg torch.masked torch.multiprocessing torch.nested
torch.nn torch.nn.attention torch.nn.functional torch.nn.init torch.nn.parallel torch.nn.utils
torch.nn.utils.parametrizations torch.nn.utils.parametrize torch.nn.utils.prune torch.nn.utils.rnn torch.optim
torch.optim.lr_scheduler torch.optim.swa_utils torch.overrides torch.profiler torch.random torch.serialization
torch.signal.windows torch.sparse torch.special torch.testing torch.utils.benchmark torch.utils.checkpoint
torch.utils.data torch.utils.dlpack torch.utils.hooks
""".split()
_LEAST = 60  # letters; less is "See torch.abs()" and the like
_SIGNATURE = re.compile(r"\A[\w.]+\(.*\n?")
_TYPED = re.compile("[A-Z][a-z0-9A-Z]+Tensor")  # IntTensor has all that Tensor has


@dataclass(frozen=True)
class Passage:
    """One entry of the documentation: the name by which it is called, "torch.cumsum", and its prose as one text."""

    name: str
    text: str


@functools.cache
def docstrings() -> tuple[Passage, ...]:
    """The docstrings of the installed PyTorch as passages, sorted by name, each text once; 2,077 of them in PyTorch 2.13.

    Only public names of a fixed list of modules, whatever else is imported. An entry that stands under several names
    keeps the shortest. The text is prose on one line a paragraph: markup, examples and displayed formulas are gone;
    a signature at its beginning stays. Entries with fewer than 60 letters of prose ("See torch.abs()") are left out.
    """
    by_text: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some names warn that they are deprecated when they are looked at
        found = sorted(_documented(), key=lambda pair: (pair[0].count("."), len(pair[0]), pair[0]))
        for name, documentation in found:
            text = _prose(documentation)
            if len(_SIGNATURE.sub("", text)) >= _LEAST and "torch._C" not in text:
                by_text.setdefault(text, name)
    return tuple(sorted((Passage(name, text) for text, name in by_text.items()), key=lambda one: one.name))


def _documented() -> Iterator[tuple[str, str]]:
    for path in _MODULES:
        module = importlib.import_module(path)
        for name, thing in _public(module):
            if inspect.ismodule(thing) or not _of_torch(thing) or _TYPED.fullmatch(name):
                continue
            yield from _with_text(f"{path}.{name}", thing)
            if inspect.isclass(thing):
                for inner, method in _public(torch._C.TensorBase if thing is torch.Tensor else thing):
                    yield from _with_text(f"{path}.{name}.{inner}", method)


def _public(owner: Any) -> Iterator[tuple[str, Any]]:
    listed = getattr(owner, "__all__", None) if inspect.ismodule(owner) else None
    for name in sorted(listed or vars(owner)):
        if not name.startswith("_") and (thing := vars(owner).get(name)) is not None:
            yield name, thing


def _of_torch(thing: Any) -> bool:
    module = getattr(thing, "__module__", None)
    return module is None or str(module).split(".")[0] == "torch"


def _with_text(name: str, thing: Any) -> Iterator[tuple[str, str]]:
    documentation = getattr(thing, "__doc__", None)
    if callable(thing) or isinstance(thing, property | staticmethod | classmethod):
        if isinstance(documentation, str) and documentation is not type(thing).__doc__:
            yield name, documentation


_DROPPED = re.compile(r"\.\. (image|figure|code|code-block|math|testcode|testsetup|plot|autosummary|autoclass) *::.*")
_DIRECTIVE = re.compile(r"\.\. (?:_[^:]*:|(?:[\w-]+) *::)\s*")
_EXAMPLE = re.compile(r"(Code )?Examples?(?: usage)? *:*", re.IGNORECASE)
_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)\s*(?:<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]*?)\s*<[^`>]*>`_*")


def _prose(documentation: str) -> str:
    """What a person would read aloud: no doctests, no code blocks, no markup; paragraphs parted by line breaks."""
    paragraphs, lines = [], []
    skipping = None  # the indent of a block that is left out
    for line in [*inspect.cleandoc(documentation).splitlines(), ""]:
        indent, line = len(line) - len(line.lstrip()), line.strip()
        if skipping is not None and (not line or indent > skipping):
            line = ""
        elif _DROPPED.match(line) or (line.endswith("::") and not line.startswith("..")):
            skipping, line = indent, re.sub(r"^\.\. .*", "", line)[:-1]
        elif line.startswith(">>>"):
            skipping, line = indent - 1, ""  # the output of a doctest ends at an empty line
        else:
            skipping = None
        if line:
            lines.append(line)
        elif lines:
            paragraphs.append(_plain(" ".join(lines)))
            lines = []
            if skipping is not None and skipping < indent:
                skipping = None
    return "\n".join(one for one in paragraphs if re.search(r"\w{2}", one) and not _EXAMPLE.fullmatch(one))


def _plain(text: str) -> str:
    text = _LINK.sub(r"\1", _ROLE.sub(r"\1", _DIRECTIVE.sub("", text)))
    text = re.sub(r"\\(?:text|mathrm|mathbf|operatorname|texttt|mathcal)\{([^}]*)\}", r"\1", text)
    text = text.replace("``", "").replace("`", "").replace("**", "").replace("\\", "")
    return re.sub(r"\s+", " ", text).strip()

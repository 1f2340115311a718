"""PyTorch's own installed documentation as a corpus to search: its docstrings, and questions about them."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.conversion import Progress, cache_folder
from labkit.models import main, minilm

__all__ = ["Passage", "Question", "docstrings", "embedded_docstrings", "prepare", "questions"]

_FORMAT = 1  # counts up when what is stored changes
_AT_ONCE = 64  # texts between two words of progress

# Named one by one: what else hangs on `torch` depends on what was imported before.
_MODULES = """\
torch torch.amp torch.autograd torch.autograd.forward_ad torch.autograd.functional torch.autograd.graph
torch.autograd.profiler torch.backends.cudnn torch.compiler torch.cuda torch.distributed
torch.distributed.checkpoint torch.distributed.fsdp torch.distributed.optim torch.distributed.pipelining
torch.distributed.tensor torch.distributed.tensor.parallel torch.distributions torch.export torch.fft torch.func
torch.futures torch.fx torch.hub torch.jit torch.library torch.linalg torch.masked torch.multiprocessing torch.nested
torch.nn torch.nn.attention torch.nn.functional torch.nn.init torch.nn.parallel torch.nn.utils
torch.nn.utils.parametrizations torch.nn.utils.parametrize torch.nn.utils.prune torch.nn.utils.rnn torch.optim
torch.optim.lr_scheduler torch.optim.swa_utils torch.overrides torch.profiler torch.random torch.serialization
torch.signal.windows torch.sparse torch.special torch.testing torch.utils.benchmark torch.utils.checkpoint
torch.utils.data torch.utils.dlpack torch.utils.hooks"""
_LEAST = 60  # letters; less is "See torch.abs()" and the like
_SIGNATURE = re.compile(r"\A[\w.]+\(.*\n?")
_TYPED = re.compile("[A-Z][a-z0-9A-Z]+Tensor")  # IntTensor has all that Tensor has


@dataclass(frozen=True)
class Passage:
    """One entry of the documentation: the name by which it is called, "torch.cumsum", and its prose as one text."""

    name: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question that a reader might ask, and the names of the passages of which any one answers it."""

    text: str
    answers: tuple[str, ...]


@functools.cache
def docstrings() -> tuple[Passage, ...]:
    """The docstrings of the installed PyTorch as passages, sorted by name, each text once; 2,077 in PyTorch 2.13.

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


@functools.cache
def questions() -> tuple[Question, ...]:
    """291 questions with known answers, always in the same order: "How do I get the running total along one axis?"

    They were written by hand from what a function is for, in everyday words. None contains the name that it asks for,
    and none has four words in a row in common with a passage that answers it; tests look. The names of all entries
    that do the same are right answers (`torch.nn.ReLU`, `torch.nn.functional.relu`); that others would serve as well
    can't be ruled out. Answers that the installed PyTorch doesn't document are left out, and questions without any.
    """
    known = {passage.name for passage in docstrings()}
    written = json.loads((Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
    asked = (Question(each["text"], tuple(name for name in each["answers"] if name in known)) for each in written)
    return tuple(question for question in asked if question.answers)


def embedded_docstrings() -> tuple[tuple[Passage, ...], torch.Tensor]:
    """`passages, vectors = embedded_docstrings()`: the docstrings and MiniLM's vectors of them, float32 [n, 384].

    A vector is that of the name and the text, at most 256 tokens of them, and has length 1. They are worked out once,
    by `python -m labkit.corpus` (a minute or two), and kept in the course's cache folder. Where they aren't there yet,
    one line says so, and a smaller corpus is used: every passage that answers a question, and each eighth other.
    Raises ModelMissing where MiniLM is not here.
    """
    passages = docstrings()
    stored = _stored(passages)
    if not stored.is_file():
        answers = {name for question in questions() for name in question.answers}
        passages = tuple(one for i, one in enumerate(passages) if one.name in answers or i % 8 == 0)
        print(
            f"A smaller corpus, {len(passages):,} of {len(docstrings()):,} passages: the vectors of all aren't in the "
            "cache yet (python -m labkit.corpus puts them there)."
        )
    return passages, _vectors(passages)


def prepare(progress: Progress | None = None) -> None:
    """Work out and keep the vectors of all docstrings. Returns at once when that is done."""
    _vectors(docstrings(), progress)


def _stored(passages: tuple[Passage, ...]) -> Path:
    """Where their vectors lie: another text or another order is another file."""
    told = json.dumps([(passage.name, passage.text) for passage in passages])
    return cache_folder() / f"docstrings-{hashlib.sha256(told.encode()).hexdigest()[:16]}-{_FORMAT}.safetensors"


def _vectors(passages: tuple[Passage, ...], progress: Progress | None = None) -> torch.Tensor:
    from safetensors.torch import load_file, save_file

    stored = _stored(passages)
    if not stored.is_file():
        found = _embedded([f"{passage.name}: {passage.text}" for passage in passages], progress)
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=stored.parent) as making:
            save_file({"vectors": found}, Path(making) / stored.name)
            os.replace(Path(making) / stored.name, stored)  # nobody sees half of it
    return load_file(stored)["vectors"]


def _embedded(texts: list[str], progress: Progress | None) -> torch.Tensor:
    encode = minilm()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length: little padding
    rows = []
    for start in range(0, len(texts), _AT_ONCE):
        rows.append(encode([texts[i] for i in order[start : start + _AT_ONCE]]))
        if progress:
            progress(min(1.0, (start + _AT_ONCE) / len(texts)), "comparing passages")
    vectors = torch.empty(len(texts), rows[0].shape[1])
    vectors[order] = torch.cat(rows)
    return vectors


def _documented() -> Iterator[tuple[str, str]]:
    for path in _MODULES.split():
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
    named = callable(thing) or isinstance(thing, property | staticmethod | classmethod)
    if named and isinstance(documentation, str) and documentation is not type(thing).__doc__:
        yield name, documentation


_DROPPED = re.compile(r"\.\. (image|figure|code|code-block|math|testcode|testsetup|plot|autosummary|autoclass) *::.*")
_DIRECTIVE = re.compile(r"\.\. (?:_[^:]*:|(?:[\w-]+) *::?)\s*")
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
        elif line.startswith((">>>", "... ")):
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
    text = re.sub(r":(?:attr|class|func|meth): ?", "", text)
    text = re.sub(r"\\(?:text|mathrm|mathbf|operatorname|texttt|mathcal)\{([^}]*)\}", r"\1", text)
    text = text.replace("``", "").replace("`", "").replace("**", "").replace("\\", "")
    return re.sub(r"\s+", " ", text).strip()


if __name__ == "__main__":
    sys.exit(main(prepare, "Vectors of the manual", "The vectors of PyTorch's manual are ready."))

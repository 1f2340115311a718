"""What a solution's text says of forbidden functions. It proves nothing: what is found is a remark for a teacher.

What runs in another process, or where the watch (forbidding.py) was taken off, is seen by nobody; its text is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from autograde.exercise import Exercise
from autograde.judging.forbidding import EXERCISES, bare, computes
from labkit.notebook import as_python

# Modules and names by which code comes to run beside the watch, or comes from a text.
_BESIDE = frozenset(
    {"threading", "_thread", "concurrent", "multiprocessing", "subprocess", "ctypes", "cffi", "asyncio", "pty"}
    | {"setprofile", "settrace", "fork", "posix_spawn", "system", "popen", "load_inline", "load_library"}
    | {"eval", "exec", "compile", "__import__", "import_module"}
)
_ANSWERS = (EXERCISES, "autograde.reference", "autograde.answers")
_WATCH = ("DisableTorch", "TorchDispatchMode", "TorchFunctionMode", "_python_dispatch", "torch_function_stack")
_MOST = 5  # words in a remark


def suspicions(
    solutions: Mapping[str, str], added: Sequence[tuple[str, str]], exercises: Mapping[str, Exercise]
) -> list[str]:
    """Remarks on a submission: its solutions by the exercise's name, and (label, text) of what stands beside them."""
    every = sorted({name for one in exercises.values() for name in one.forbid})
    texts = [(name, solutions.get(name, ""), one.forbid) for name, one in exercises.items()]
    texts += [(label, source, every) for label, source in added]
    return [remark for text in texts for remark in remarks(*text)]


def remarks(name: str, source: str, forbid: Sequence[str]) -> list[str]:
    """What a teacher may want to look at in a solution of the exercise `name`, which forbids `forbid`."""
    try:
        tree = ast.parse(as_python(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = [word for word in _names(tree) if len(word) < 200]
    words = names + [text for text in _texts(tree) if len(text) < 200]
    found = []
    for module in _ANSWERS:
        if any(f"{word}.".startswith(f"{module}.") for word in words):
            found.append(f"{name}: its text has `{module}`, where the right answers are")
    if not forbid:
        return found
    banned = frozenset().union(*map(computes, forbid)) | {forbidden for forbidden in forbid if "." not in forbidden}
    used = [word for word in words if word in forbid or bare(word.rpartition(".")[2]) in banned or _top(word) in banned]
    if used:
        found.append(f"{name}: its text has {_listed(used)}, which is forbidden or computes what is")
    beside = [word for word in names if _top(word) in _BESIDE or any(part in word for part in _WATCH)]
    if beside:
        found.append(f"{name}: its text has {_listed(beside)}, by which code can run unwatched")
    return found


def _top(word: str) -> str:
    return word.partition(".")[0]


def _listed(words: Sequence[str]) -> str:
    known = list(dict.fromkeys(words))
    return ", ".join(f"`{word}`" for word in known[:_MOST]) + ", …" * (len(known) > _MOST)


def _texts(tree: ast.AST) -> Iterator[str]:
    """Texts that could be names: `getattr` makes some of them."""
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return (value for value in constants if isinstance(value, str) and value.isidentifier())


def _names(tree: ast.AST) -> Iterator[str]:
    """What a text uses: modules, attributes, and names that it calls.

    A name by itself counts only where Python itself gives it a meaning: learners call their own functions as they like.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name) and node.id in _BESIDE:
            yield node.id

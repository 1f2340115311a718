"""What a chapter needs on Colab that Colab's own environment lacks, read from the imports of its code."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from autograde.authoring.chapter import Chapter

__all__ = ["LACKS", "lacking", "modules"]

# Module -> what pip is to install. All else that chapters import is part of Colab's environment, or of Python. With a
# bound stands what Colab has, or had in the newest list of its packages that is known (tests/colab.txt), in a version
# that is too old: where it has a newer one by now, pip finds nothing to do.
LACKS = {
    "bm25s": "bm25s",
    "cloudpickle": "cloudpickle",
    "faiss": "faiss-cpu",
    "fsrs": "fsrs",
    "gguf": "gguf",
    "mcp": "mcp>=2",
    "mcp_types": "mcp-types>=2",
    "mdit_py_plugins": "mdit-py-plugins",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "platformdirs": "platformdirs",
    "rapidfuzz": "rapidfuzz",
    "rjieba": "rjieba",
    "sacrebleu": "sacrebleu",
    "transformers": "transformers>=5",
}
# What a module needs without importing it by name: transformers reads GGUF files, torch exports to ONNX.
_BESIDE = {"labkit.conversion": "gguf", "onnx": "onnxscript"}
_OURS = ("autograde", "labkit", "experiments")


def lacking(chapter: Chapter, root: Path) -> list[str]:
    """The packages to install on Colab for one chapter, sorted."""
    return sorted({LACKS[module] for module in modules(chapter, root) if module in LACKS})


def modules(chapter: Chapter, root: Path) -> set[str]:
    """The top-level modules that a chapter, its exercises and what they use of the course import."""
    code = "\n".join(cell.source for cell in chapter.cells if cell.kind != "markdown")
    waiting, seen, found = [*_imported(code)], set(), {"cloudpickle"}  # the checks send functions to other processes
    if chapter.exercises:
        folder = root / "autograde/exercises" / chapter.exercises.replace(".", "/")
        waiting += [f"autograde.exercises.{chapter.exercises}.{file.stem}" for file in folder.glob("*.py")]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.split(".")[0]
        if top not in _OURS:
            found.add(top)
        elif file := _file(root, name):
            waiting += _of_file(file)
        waiting += [_BESIDE[name]] if name in _BESIDE else []
        if top in ("autograde", "labkit") and top != name and (home := _homes(root, top).get(name.split(".")[1])):
            waiting.append(f"{top}.{home}")
    return found


def _imported(code: str) -> Iterator[str]:
    """Every module that code imports, and every name that it takes from one: that may be a module, too."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a learner's chapter may hold IPython's own syntax
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


@functools.cache
def _of_file(file: Path) -> tuple[str, ...]:
    return tuple(_imported(file.read_text(encoding="utf-8")))


def _file(root: Path, name: str) -> Path | None:
    path = root / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@functools.cache
def _homes(root: Path, package: str) -> dict[str, str]:
    """The names that autograde or labkit loads on first use, and their modules."""
    file = root / package / "__init__.py"  # not there in a folder that holds chapters only
    for node in ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOME":
            return ast.literal_eval(node.value)
    return {}

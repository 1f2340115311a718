"""Which modules a notebook names and doesn't import: `torch.nn.utils.parametrize` after `import torch` alone.

In a process that has imported a lot, such a name is there. So this runs in a fresh one: `python submodules.py` reads
{name: source} from stdin and writes {name: [what is missing]}, both JSON.
"""

from __future__ import annotations

import ast
import contextlib
import json
import multiprocessing
import sys
import types


def missing(source: str) -> list[str]:
    """The names like `torch.nn.utils.parametrize` that aren't there after the source's own imports.

    Looks at names that begin with `import …` or `from torch import …`. Other imports run only where the notebook does:
    they take seconds, and each names its module in full.
    """
    tree = ast.parse(source)
    chains = {chain for node in ast.walk(tree) if (chain := _chain(node))}
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module == "torch"):
            with contextlib.suppress(ImportError):  # such as TensorRT's, behind a look for a device
                exec(compile(ast.Module([node], []), "import", "exec"), names)
    return sorted({gone for chain in chains if (gone := _first_missing(chain, names))})


def _chain(node: ast.AST) -> str:
    """ "a.b.c" for an expression of names and dots, else ""."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if parts and isinstance(node, ast.Name) else ""


def _first_missing(chain: str, names: dict) -> str:
    first, *parts = chain.split(".")
    value = names.get(first)
    for number, part in enumerate(parts, start=2):
        if isinstance(value, types.ModuleType) and not hasattr(value, part):
            return ".".join(chain.split(".")[:number])
        value = getattr(value, part, None)
    return ""


if __name__ == "__main__":
    import torch  # noqa: F401 - every chapter does, so the processes below may have it from here

    sources = json.load(sys.stdin)
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:  # one after the other, each by itself
        json.dump(dict(zip(sources, pool.map(missing, sources.values(), chunksize=1), strict=True)), sys.stdout)

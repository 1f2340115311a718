"""Take one function or class out of an installed library without importing the module that it stands in.

An oracle needs ten lines of a library; importing their module brings in compilers, servers and file formats, and costs
a learner's first `check` two seconds. `borrowed` reads the module's source file and runs, verbatim, the definition that
is asked for, and of what it leans on only what is really reached.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["borrowed"]


@functools.cache
def borrowed(module: str, name: str) -> Any:
    """`name` of `module`, as `from module import name` gives it, but without running the rest of the module.

    Where something is in the way (no source, another version's way to define it), and where the module has been
    imported anyway, it is the plain import, with its errors: ImportError, AttributeError.
    """
    try:
        return _names(module)[name]
    except Exception:
        return _imported(module, name)


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


@functools.cache
def _names(module: str) -> Mapping[str, Any]:
    """A module's names. Decided once: two classes of one name, one borrowed and one not, would not be the same."""
    return vars(sys.modules[module]) if module in sys.modules else _Names(module)


class _Names(dict):
    """The global names of a module that isn't imported, each made when it is first looked up.

    It is the `__globals__` of the borrowed functions: Python asks a subclass of dict for what it lacks, also at run
    time. A name that can't be made from the source alone comes from the module itself, which is then imported.
    """

    def __init__(self, module: str):
        path = _file(module)
        if path is None:
            raise ModuleNotFoundError(f"{module} has no source file", name=module)
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        super().__init__(__name__=module, __package__=package, __file__=str(path), __builtins__=builtins)
        self._bindings = _bindings(ast.parse(path.read_bytes()))

    def __missing__(self, name: str) -> Any:
        statements = self._bindings[name]  # a KeyError sends Python on to the builtins
        try:
            self[name] = self._made(name, statements)
        except Exception:
            self[name] = _imported(self["__name__"], name)
        return self[name]

    def _made(self, name: str, statements: list[ast.stmt]) -> Any:
        if not statements:
            raise LookupError(f"{name} may be one thing or another")
        origin = self._origin(statements[-1])
        if origin:
            return borrowed(*origin)
        # Annotations stay texts: what they name need not be had.
        flags = __future__.annotations.compiler_flag
        code = compile(ast.Module(statements, []), self["__file__"], "exec", flags, dont_inherit=True)
        for used in _used_by_classes(code):
            if used in self._bindings and used != name:
                self[used]
        exec(code, self)
        return self[name]

    def _origin(self, statement: ast.stmt) -> tuple[str, str] | None:
        """Module and name of what comes from another module of the same library."""
        if not isinstance(statement, ast.ImportFrom):
            return None
        module = importlib.util.resolve_name("." * statement.level + (statement.module or ""), self["__package__"])
        name, libraries = statement.names[0].name, {each.partition(".")[0] for each in (module, self["__name__"])}
        return (module, name) if len(libraries) == 1 and not _file(f"{module}.{name}") else None


def _file(module: str) -> pathlib.Path | None:
    """A module's source file, found without importing the packages around it."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec and spec.submodule_search_locations) or ():
        place = pathlib.Path(folder, *below)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


def _bindings(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """The names that a module binds, with the statements to run for each: none where it isn't clear which."""
    found: dict[str, list[ast.stmt | None]] = {}
    for name, statement in _bound(tree.body):
        found.setdefault(name, []).append(statement)
    return {name: _settled(statements) for name, statements in found.items()}


def _settled(statements: list[ast.stmt | None]) -> list[ast.stmt]:
    if None in statements:
        return []
    if all(isinstance(each, ast.FunctionDef) for each in statements):
        return statements[-1:]
    together = all(isinstance(each, ast.Import) and not each.names[0].asname for each in statements)  # a.b and a.c
    return statements if together or len(statements) == 1 else []


def _bound(body: list[ast.stmt], sure: bool = True) -> Iterator[tuple[str, ast.stmt | None]]:
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                yield alias.asname or alias.name.partition(".")[0], _import_of(statement, alias)
        elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            statement.decorator_list = [each for each in statement.decorator_list if not _is_idle(each)]
            yield statement.name, statement if sure else None
        elif isinstance(statement, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            yield from ((name, None) for name in _assigned(statement))
            for part in ("body", "handlers", "orelse", "finalbody"):
                for inner in getattr(statement, part, []):
                    yield from _bound(inner.body if isinstance(inner, ast.ExceptHandler) else [inner], sure=False)
        else:
            yield from ((name, statement if sure else None) for name in _assigned(statement))


def _assigned(statement: ast.stmt) -> Iterator[str]:
    nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return (node.id for node in nodes if isinstance(node.ctx, ast.Store))


def _import_of(statement: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if alias.name == "*":
        raise LookupError("what `import *` binds is not to be seen")
    one = {"names": [alias]}
    if isinstance(statement, ast.ImportFrom):
        one |= {"module": statement.module, "level": statement.level}
    return ast.copy_location(type(statement)(**one), statement)


def _is_idle(decorator: ast.expr) -> bool:
    """Whether a decorator only speaks to a compiler, or lets a kernel from the hub take the place of what is defined.

    Neither is wanted here, and the first imports the compiler.
    """
    return ast.unparse(decorator).startswith(("use_kernel", "torch.compiler.disable"))


def _used_by_classes(code: types.CodeType) -> Iterator[str]:
    """The names that bodies of classes look up, within functions too: these Python reads past `__missing__`."""
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from () if inner.co_flags & inspect.CO_OPTIMIZED else inner.co_names
            yield from _used_by_classes(inner)

"""See whether code calls something that an exercise forbids, however the call is spelled.

Three watchers stand side by side, since each alone can be walked round: a `TorchFunctionMode` sees torch's functions
and tensor methods by name (`F.softmax`, `x.softmax`, `getattr(torch, "soft" + "max")`), a `TorchDispatchMode` sees the
operators under them (`torch.ops.aten._softmax`), and a profile hook sees every Python function by its module (the
layers of `torch.nn`, `transformers`, a from-import under another name) and every compiled one by its object's.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from types import CodeType

import torch
from torch.overrides import TorchFunctionMode

from labkit.modes import Listener

# Operators that do a forbidden function's work under another name.
_OPERATORS = {
    "scaled_dot_product_attention": ("scaled_dot_product", "native_multi_head_attention"),
    "MultiheadAttention": ("native_multi_head_attention",),
    "rms_norm": ("fused_rms_norm",),
    "layer_norm": ("native_layer_norm",),
    "batch_norm": ("native_batch_norm", "cudnn_batch_norm", "batch_norm_with_update"),
    "cross_entropy": ("nll_loss", "cross_entropy_loss"),
    "clip_grad_norm_": ("clip_grads_with_norm",),
}

_MOST_CODES = 10_000
EXERCISES = "autograde.exercises"  # has every right answer: no solution may ask there
UNNAMED = "something that is forbidden"


def always_forbidden(names: Sequence[str]) -> tuple[str, ...]:
    """What an exercise forbids, and what all of them do."""
    return (*names, EXERCISES)


def dont_call(name: str) -> str:
    """What a learner is told who used the forbidden `name`."""
    return f"This exercise asks you to build what `{name}` does, so don't call it."


class Watch:
    """A context manager; afterwards `used` is the first forbidden name that was called inside, or None."""

    def __init__(self, names: Sequence[str]):
        self.used: str | None = None
        self._rules = _rules(tuple(names))

    def __enter__(self) -> Watch:
        if self._rules.names:
            self._before, self._depth = sys.getprofile(), torch._C._len_torch_function_stack()
            self._modes = _Functions(self._note, self._rules), _Operators(self._note, self._rules)
            for mode in self._modes:
                mode.__enter__()
            sys.setprofile(self._hook())
        return self

    def __exit__(self, *error) -> None:
        if not self._rules.names:
            return
        sys.setprofile(self._before)
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        del self._modes  # they know this watch: no circle is left for the garbage collector
        while torch._C._len_torch_function_stack() > self._depth:  # a mode that an interruption left behind
            torch._C._pop_torch_function_stack()

    def _note(self, forbidden: str | None) -> None:
        self.used = self.used or forbidden

    def _hook(self) -> Callable:
        """What `sys.setprofile` takes. It runs at each of many calls, so what is known leaves at once."""
        rules, codes, compiled = self._rules, self._rules.harmless_codes, self._rules.harmless_compiled

        def hook(frame, event: str, arg) -> None:
            if event == "call":
                if codes.get(frame.f_code) is not frame.f_globals:
                    self._note(rules.code(frame.f_code, frame.f_globals))
            elif event == "c_call" and (type(arg.__self__), arg.__name__) not in compiled:
                self._note(rules.compiled(type(arg.__self__), arg.__name__))

        return hook


class _Rules:
    """What a list of forbidden names forbids. Whoever asks at every call remembers in `harmless_…` what isn't."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self._short = {name.rpartition(".")[2]: name for name in names if name.startswith("torch.")}
        self._modules = tuple(name for name in names if _is_module(name))
        self._codes = {code: name for name in names for code in _codes(name)}
        self.harmless_codes: dict[CodeType, dict] = {}  # and the globals with which they are
        self.harmless_compiled: set[tuple[type, str]] = set()
        self.harmless_functions: set[str] = set()
        self.harmless_operators: set[str] = set()

    def function(self, name: str) -> str | None:
        """The forbidden name that a torch function of this bare name stands for, or None."""
        return self._judge(name) or self.harmless_functions.add(name)

    def operator(self, name: str) -> str | None:
        """As `function`, for an operator under torch's functions; `name` has its overload's behind a dot."""
        return self._judge(name.partition(".")[0]) or self.harmless_operators.add(name)

    def code(self, code: CodeType, space: dict) -> str | None:
        """The forbidden name behind a Python function with these globals: its own, or that of its module."""
        found = self._codes.get(code) or self._module(space.get("__name__", ""))
        if not found:
            if len(self.harmless_codes) > _MOST_CODES:  # a long session makes functions without end
                self.harmless_codes.clear()
            self.harmless_codes[code] = space
        return found

    def compiled(self, kind: type, name: str) -> str | None:
        """The forbidden name behind a method of a compiled class, or None. Functions are methods of their module."""
        # A parameter is of torch.nn, and its methods are any tensor's.
        other = self._module(kind.__module__) if not kind.__module__.startswith("torch") else None
        return self._judge(name) or other or self.harmless_compiled.add((kind, name))

    def _judge(self, called: str) -> str | None:
        bare = called.strip("_")
        for short, name in self._short.items():
            if bare == short.strip("_") or bare.startswith(_OPERATORS.get(short, ("\0",))):
                return name
        return None

    def _module(self, module: str) -> str | None:
        return next((name for name in self._modules if f"{module}.".startswith(f"{name}.")), None)


@functools.lru_cache(maxsize=64)
def _rules(names: tuple[str, ...]) -> _Rules:
    return _Rules(names)


class _Functions(TorchFunctionMode):
    def __init__(self, note: Callable, rules: _Rules):
        super().__init__()
        self._note, self._rules, self._harmless = note, rules, rules.harmless_functions

    def __torch_function__(self, func, types, args=(), kwargs=None):
        try:
            name = func.__name__
        except AttributeError:  # getattr with a default would be one more call for the hook to look at
            name = ""
        if name not in self._harmless:
            self._note(self._rules.function(name))
        return func(*args, **(kwargs or {}))


class _Operators(Listener):
    def __init__(self, note: Callable, rules: _Rules):
        super().__init__()
        self._note, self._rules, self._harmless = note, rules, rules.harmless_operators

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__ not in self._harmless:
            self._note(self._rules.operator(func.__name__))
        return func(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=512)
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@functools.lru_cache(maxsize=512)
def _codes(name: str) -> list:
    """The code objects that run when `name` is called: of a Python function, or of a class's own methods."""
    if _is_module(name):
        return []
    module, _, attribute = name.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except ImportError:  # not installed, so it can't be called either
        return []
    if inspect.isclass(target):
        members = [member for member in vars(target).values() if inspect.isfunction(member)]
    else:
        members = [inspect.unwrap(target)] if callable(target) else []
    codes = [member.__code__ for member in members if hasattr(member, "__code__")]
    # A decorator such as contextmanager puts its own code into the class: that runs wherever it is used.
    return [code for code in codes if not inspect.isclass(target) or code.co_filename == _file_of(target)]


def _file_of(target: type) -> str | None:
    return getattr(sys.modules.get(target.__module__), "__file__", None)

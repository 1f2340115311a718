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
from collections.abc import Sequence

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


class Watch:
    """A context manager; afterwards `used` is the first forbidden name that was called inside, or None."""

    def __init__(self, names: Sequence[str]):
        self.used: str | None = None
        self._rules = _rules(tuple(names))
        self._functions, self._operators = _Functions(self), _Operators(self)

    def __enter__(self) -> Watch:
        if not self._rules.names:
            return self
        self._before, self._depth = sys.getprofile(), torch._C._len_torch_function_stack()
        self._functions.__enter__()
        self._operators.__enter__()
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error) -> None:
        if not self._rules.names:
            return
        sys.setprofile(self._before)
        self._operators.__exit__(*error)
        self._functions.__exit__(*error)
        while torch._C._len_torch_function_stack() > self._depth:  # a mode that an interruption left behind
            torch._C._pop_torch_function_stack()

    def saw(self, called: str) -> None:
        """Takes note of a torch function or operator by its bare name."""
        self.used = self.used or self._rules.function(called)

    def _profile(self, frame, event: str, arg) -> None:
        if event == "c_call":
            self.used = self.used or self._rules.compiled(arg)
        elif event == "call":
            self.used = self.used or self._rules.code(frame.f_code, frame.f_globals.get("__name__", ""))


class _Rules:
    """What a list of forbidden names forbids. Answers are remembered: a watch asks at every call."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self._short = {name.rpartition(".")[2]: name for name in names if name.startswith("torch.")}
        self._modules = tuple(name for name in names if _is_module(name))
        self._codes = {code: name for name in names for code in _codes(name)}
        self._functions: dict[str, str | None] = {}
        self._inside: dict[str, str | None] = {}

    def function(self, called: str) -> str | None:
        """The forbidden name that a torch function or operator of this bare name stands for, or None."""
        if called not in self._functions:
            self._functions[called] = self._judge(called.strip("_"))
        return self._functions[called]

    def _judge(self, bare: str) -> str | None:
        for short, name in self._short.items():
            if bare == short.strip("_") or bare.startswith(_OPERATORS.get(short, ("\0",))):
                return name
        return None

    def code(self, code, module: str) -> str | None:
        """The forbidden name behind a Python function: its own, or that of the module it lives in."""
        return self._codes.get(code) or self._module(module)

    def compiled(self, function) -> str | None:
        """The forbidden name behind a compiled function: torch's by its bare name, others by their object's module."""
        home = type(getattr(function, "__self__", None)).__module__
        # A parameter is of torch.nn, and its methods are any tensor's.
        other = self._module(home) if not home.startswith("torch") else None
        return self.function(getattr(function, "__name__", "")) or other

    def _module(self, module: str) -> str | None:
        if module not in self._inside:
            inside = (name for name in self._modules if f"{module}.".startswith(f"{name}."))
            self._inside[module] = next(inside, None)
        return self._inside[module]


@functools.lru_cache(maxsize=64)
def _rules(names: tuple[str, ...]) -> _Rules:
    return _Rules(names)


class _Functions(TorchFunctionMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self._watch.saw(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


class _Operators(Listener):
    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._watch.saw(func._schema.name.partition("::")[2])
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

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
import threading
from collections.abc import Callable, Sequence
from types import CodeType

import torch
from torch.overrides import TorchFunctionMode

from labkit.modes import Listener

# What torch's operators compute, by their names without underscores at the ends. A test holds this against torch's own
# list: an operator whose name says that it is of one of these families stands here, or among HARMLESS with a reason.
_TABLE = {
    "softmax": (
        "softmax log_softmax masked_softmax safe_softmax sparse_softmax sparse_log_softmax special_softmax "
        "special_log_softmax nested_tensor_softmax_with_shape"
    ),
    "attention": (
        "scaled_dot_product_attention scaled_dot_product_attention_math scaled_dot_product_attention_math_for_mps "
        "scaled_dot_product_cudnn_attention scaled_dot_product_efficient_attention scaled_dot_product_flash_attention "
        "scaled_dot_product_flash_attention_for_cpu scaled_dot_product_fused_attention_overrideable "
        "cudnn_attention_forward efficient_attention_forward flash_attention_forward "
        "flash_attention_forward_no_dropout_inplace native_multi_head_attention triton_multi_head_attention "
        "triton_scaled_dot_attention multi_head_attention_forward transformer_encoder_layer_fwd"
    ),
    "transformer layer": "transformer_encoder_layer_fwd",
    "layer norm": "layer_norm native_layer_norm",
    "rms norm": "rms_norm fused_rms_norm",
    "batch norm": (
        "batch_norm native_batch_norm cudnn_batch_norm miopen_batch_norm quantized_batch_norm batch_norm_impl_index "
        "batch_norm_no_update batch_norm_with_update batch_norm_with_update_functional native_batch_norm_legit "
        "native_batch_norm_legit_functional native_batch_norm_legit_no_training batch_norm_elemt batch_norm_stats "
        "batch_norm_gather_stats batch_norm_gather_stats_with_counts batch_norm_update_stats"
    ),
    "group norm": "group_norm native_group_norm",
    "instance norm": "instance_norm",
    "cross entropy": (
        "cross_entropy cross_entropy_loss linear_cross_entropy nll_loss nll_loss2d nll_loss_nd nll_loss_forward "
        "nll_loss2d_forward"
    ),
    "divergence": "kl_div",
    "dropout": (
        "dropout native_dropout fused_dropout alpha_dropout feature_dropout feature_alpha_dropout dropout1d dropout2d "
        "dropout3d"
    ),
    "cosine": "cosine_similarity cosine_embedding_loss",
    "clipping": "clip_grad_norm clip_grads_with_norm",
}
FAMILIES = {family: frozenset(names.split()) for family, names in _TABLE.items()}

# Operators that sound like one of these families and need not be forbidden with it. Their backward halves need what the
# forward ones gave; quantized ones need quantized tensors, and static_runtime's run in compiled programs alone.
HARMLESS: dict[str, str] = {
    "binary_cross_entropy": "of two classes, with probabilities given",
    "binary_cross_entropy_with_logits": "of two classes, by a sigmoid",
    "poisson_nll_loss": "of a Poisson distribution",
    "gaussian_nll_loss": "of a normal distribution",
    "cudnn_init_dropout_state": "makes a state and drops nothing",
    "fill_mem_eff_dropout_mask": "draws a mask and drops nothing",
    "special_logsumexp": "as logsumexp",
    "logsumexp": "the logarithm of a sum: subtracting and dividing is left to do",
}

# Which families a forbidden function stands for, by the last part of its name: softmax is also log_softmax(x).exp(),
# and attention over the identity.
_STANDS_FOR = {
    "softmax": ("softmax", "attention"),
    "scaled_dot_product_attention": ("attention",),
    "multi_head_attention_forward": ("attention",),
    "multiheadattention": ("attention",),
    "transformerencoderlayer": ("transformer layer",),
    "layer_norm": ("layer norm",),
    "rms_norm": ("rms norm",),
    "batch_norm": ("batch norm",),
    "group_norm": ("group norm",),
    "instance_norm": ("instance norm",),
    "cross_entropy": ("cross entropy",),
    "nll_loss": ("cross entropy",),
    "kl_div": ("divergence",),
    "dropout": ("dropout",),
    "cosine_similarity": ("cosine",),
    "clip_grad_norm": ("clipping",),
    "clip_grads_with_norm": ("clipping",),
}


def bare(name: str) -> str:
    """An operator's or function's name without its namespace, overload, and underscores at the ends."""
    return name.rpartition("::")[2].partition(".")[0].strip("_")


def computes(name: str) -> frozenset[str]:
    """The names of all operators by which a forbidden function may be had; `name` may be dotted."""
    short = bare(name.rpartition(".")[2])
    return frozenset({short}).union(*(FAMILIES[family] for family in _STANDS_FOR.get(short.lower(), ())))


_MOST_CODES = 10_000
EXERCISES = "autograde.exercises"  # has every right answer: no solution may ask there
UNNAMED = "something that is forbidden"


def always_forbidden(names: Sequence[str]) -> tuple[str, ...]:
    """What an exercise forbids, and what all of them do."""
    return (*names, EXERCISES)


def dont_call(name: str) -> str:
    """What a learner is told who used the forbidden `name`."""
    return f"This exercise asks you to build what `{name}` does, so don't call it."


def off_limits(names: Sequence[str]) -> str:
    """The line that stands under an exercise which forbids `names`; empty where it forbids nothing."""
    if not names:
        return ""
    listed = ", ".join(f"`{name}`" for name in names)
    alike = any(len(computes(name)) > 1 for name in names)
    return f"Not to be called here: {listed}{', nor torch functions that compute the same' if alike else ''}."


class Watch:
    """A context manager; afterwards `used` is the first forbidden name that was called inside, or None.

    names: what is forbidden. It may hold EXERCISES; then `probe`, which is of the course, is allowed nevertheless.
    Python's threads that begin inside are watched as well, for what the profile hook sees.
    """

    def __init__(self, names: Sequence[str], probe: Callable | None = None):
        self.used: str | None = None
        self._rules = _rules(tuple(names), _nested(probe.__code__) if probe else frozenset())

    def __enter__(self) -> Watch:
        if self._rules.names:
            self._before, self._depth = sys.getprofile(), torch._C._len_torch_function_stack()
            self._before_in_threads = threading.getprofile()
            modes = (_Functions(self._note, self._rules), _Operators(self._note, self._rules))
            self._modes = modes if self._rules.has_operators else ()
            for mode in self._modes:
                mode.__enter__()
            hook = self._hook()
            threading.setprofile(hook)
            sys.setprofile(hook)
        return self

    def __exit__(self, *error) -> None:
        if not self._rules.names:
            return
        sys.setprofile(self._before)
        threading.setprofile(self._before_in_threads)
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

    def __init__(self, names: Sequence[str], allowed: frozenset[CodeType]):
        self._modules = tuple(name for name in names if _is_module(name))
        # Where the exercises are not, as in the sandbox, there is nothing to watch for their sake.
        self.names = [name for name in names if name != EXERCISES or name in self._modules]
        operators = [name for name in names if name.startswith("torch.")]
        self._operators = {made: name for name in reversed(operators) for made in computes(name)}
        self.has_operators = bool(operators)
        self._allowed = allowed
        self._codes = {code: name for name in self.names for code in _codes(name)}
        self.harmless_codes: dict[CodeType, dict] = {}  # and the globals with which they are
        self.harmless_compiled: set[tuple[type, str]] = set()
        self.harmless_functions: set[str] = set()
        self.harmless_operators_of: set[Callable] = set()  # functions over harmless operators alone
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
        if found and found != EXERCISES and _is_being_imported(found):
            return None  # torch does that by itself, in the middle of something else: nobody has called anything yet
        if not found or code in self._allowed:
            if len(self.harmless_codes) > _MOST_CODES:  # a long session makes functions without end
                self.harmless_codes.clear()
            self.harmless_codes[code] = space
            return None
        return found

    def compiled(self, kind: type, name: str) -> str | None:
        """The forbidden name behind a method of a compiled class, or None. Functions are methods of their module."""
        # A parameter is of torch.nn, and its methods are any tensor's.
        other = self._module(kind.__module__) if not kind.__module__.startswith("torch") else None
        return self._judge(name) or other or self.harmless_compiled.add((kind, name))

    def _judge(self, called: str) -> str | None:
        return self._operators.get(bare(called))

    def _module(self, module: str) -> str | None:
        return next((name for name in self._modules if f"{module}.".startswith(f"{name}.")), None)


@functools.lru_cache(maxsize=64)
def _rules(names: tuple[str, ...], allowed: frozenset[CodeType]) -> _Rules:
    return _Rules(names, allowed)


def _nested(code: CodeType) -> frozenset[CodeType]:
    """A code object and those of the functions and classes inside it."""
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return frozenset({code}).union(*map(_nested, inner))


def is_ready_made(implementation: Callable) -> bool:
    """Whether a solution is one of the exercises' own functions: an oracle, say."""
    return f"{getattr(implementation, '__module__', '')}.".startswith(f"{EXERCISES}.")


# Under these functions of torch's there are only copies, views and products.
_OVER_HARMLESS = frozenset(
    ["__getitem__", "chunk", "contiguous", "flatten", "linear", "matmul", "max", "min", "outer", "repeat_interleave"]
    + ["reshape", "split", "std", "to", "type_as", "var", "where"]
)
# A tensor that runs Python code of its own under torch's operators is none of these: it needs what a guard takes away.
_PLAIN = frozenset([torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype]) | frozenset(
    [int, float, bool, str, tuple, slice, type(None), type(...)]
)


@functools.lru_cache(maxsize=4096)
def is_one_operator(function: Callable) -> bool:
    """Whether a function of torch's is compiled, and the only operator under it is that of its own name.

    Then whoever has seen the function has nothing to look for among the operators. Those that are made of others
    (torch calls them CompositeImplicit) aren't, but for a few that are made of what nobody forbids.
    """
    if not inspect.isbuiltin(function) and not inspect.ismethoddescriptor(function):
        return False
    if function.__name__ in _OVER_HARMLESS:
        return True
    made = [_is_made_of_others(f"{schema.name}.{schema.overload_name}".rstrip(".")) for schema in _schemas(function)]
    return bool(made) and not any(made)


def _schemas(function: Callable) -> list:
    return torch._C._jit_get_schemas_for_operator(f"aten::{function.__name__}")


def _is_made_of_others(operator: str) -> bool:
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CompositeImplicitAutograd")
    except RuntimeError:  # of compiled programs alone, on their own numbers and lists
        return False


_NoOperators, _listeners = torch._C._DisableTorchDispatch, torch._C._len_torch_dispatch_stack


class _Functions(TorchFunctionMode):
    def __init__(self, note: Callable, rules: _Rules):
        super().__init__()
        self._note, self._rules = note, rules
        self._harmless, self._done = rules.harmless_functions, rules.harmless_operators_of
        self._alone = -1 if _listeners() else 1  # how many listen to operators where nobody but this watch does

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self._done and not types and {*map(type, args)} <= _PLAIN and _listeners() == self._alone:
            if not kwargs:
                no_operators = _NoOperators()  # noqa: F841 - until this returns: watching them takes longer than they
                return func(*args)
            if {*map(type, kwargs.values())} <= _PLAIN:
                no_operators = _NoOperators()  # noqa: F841
                return func(*args, **kwargs)
        try:
            name = func.__name__
        except AttributeError:  # getattr with a default would be one more call for the hook to look at
            name = ""
        if name not in self._harmless:
            self._note(self._rules.function(name))
        elif is_one_operator(func):
            self._done.add(func)
        return func(*args, **(kwargs or {}))


class _Operators(Listener):
    def __init__(self, note: Callable, rules: _Rules):
        super().__init__()
        self._note, self._rules, self._harmless = note, rules, rules.harmless_operators

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__ not in self._harmless:
            self._note(self._rules.operator(func.__name__))
        return func(*args, **(kwargs or {}))


def _is_being_imported(name: str) -> bool:
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)


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

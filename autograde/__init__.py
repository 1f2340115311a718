"""Autograded exercises that know the mistakes people make."""

import importlib
import sys
import types

from labkit.display import kernel_shell
from labkit.unsolved import install

_HOME = {
    "check": "check",
    "failing": "helping",
    "hint": "helping",
    "history": "keeping",
    "reset": "keeping",
    "reveal": "keeping",
    "drill": "practicing",
    "interview": "practicing",
}
__all__ = list(_HOME)


def __getattr__(name):
    """Load what a learner calls, and with it torch, on first use (PEP 562): a teacher's commands start without."""
    if name not in _HOME:
        raise AttributeError(f"module 'autograde' has no attribute {name!r}")
    _offer(name)
    return _loaded(name)


def _loaded(name):
    return getattr(importlib.import_module(f"autograde.{_HOME[name]}"), name)


def _offer(asked):
    """In a kernel, have the others at hand as soon as one was asked for, unless the learner has such a name.

    Nobody should have to import what the buttons do. And `reset(softmax)` with nothing of that name is for IPython its
    own magic %reset, which asks whether to delete all variables.
    """
    shell = kernel_shell()
    if shell is not None:
        others = [name for name in _HOME if name not in (asked, *shell.user_ns)]
        shell.push({name: _loaded(name) for name in others}, interactive=False)


class _Package(types.ModuleType):
    """Keeps `autograde.check` the function: importing the module of that name would put the module there."""

    def __setattr__(self, name, value):
        if name == "check" and isinstance(value, types.ModuleType):
            value = value.check
        super().__setattr__(name, value)


def _exercises():
    return importlib.import_module("autograde.exercises").names()


sys.modules[__name__].__class__ = _Package
install(_exercises)

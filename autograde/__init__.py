"""Autograded exercises that know the mistakes people make."""

import importlib
import sys
import types

from labkit.unsolved import install

__all__ = ["check"]


def __getattr__(name):
    """Load `check`, and with it torch, when it is first used (PEP 562): a teacher's commands start without."""
    if name != "check":
        raise AttributeError(f"module 'autograde' has no attribute {name!r}")
    return importlib.import_module("autograde.check").check


class _Package(types.ModuleType):
    """Keeps `autograde.check` the function: importing the module of that name would put the module there."""

    def __setattr__(self, name, value):
        if name == "check" and isinstance(value, types.ModuleType):
            value = value.check
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
install()

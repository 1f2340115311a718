"""Inside the kernel of a paired notebook (see pairing.py): two runs side by side. An IPython extension.

`%lineage released`, `%lineage solved` and `%lineage both` say whose the cells below are.
"""

from __future__ import annotations

import functools
import random

import numpy as np
import torch

from labkit import unsolved

_ABSENT = object()


class Lineages:
    """What a released and a solved run have each for itself: names, and what `labkit.unsolved` remembers.

    A cell of one run sees the names of that run. A cell of both sees what the two agree on, and what it binds or
    deletes is so in both. The objects themselves are shared, so what a solved cell was seen to change in place is no
    longer agreed on: no cell of both finds it. The random states are those of the solved run, since a stub may raise at
    any point of a stream.
    """

    def __init__(self, shell):
        self.shell, self.now = shell, "both"
        self.names = {"released": self._visible(), "solved": self._visible()}
        self.unmade = {"released": set(), "solved": set(), "both": set()}
        self.shown, self.undo, self.before, self.touched = self._visible(), [], [], []

    def switch(self, whose: str) -> None:
        """The cells below are of `whose` run: released, solved or both."""
        self._keep()
        self.now = whose.strip()
        self._show()

    def _keep(self) -> None:
        seen = self._visible()
        if self.now == "both":
            for names in self.names.values():
                for gone in self.shown.keys() - seen.keys():
                    del names[gone]
                names.update(seen)
        else:
            self.names[self.now] = seen
        for restore, state in self.undo:
            restore(state)
        self.touched += [value for value, state in self.before if _state(value) != state]

    def _show(self) -> None:
        released, solved = self.names["released"], self.names["solved"]
        agreed = {
            name: value
            for name, value in released.items()
            if solved.get(name, _ABSENT) is value and not any(value is touched for touched in self.touched)
        }
        for name in self._visible():
            del self.shell.user_ns[name]
        self.shown = self.names.get(self.now, agreed)
        self.shell.user_ns.update(self.shown)
        unsolved._unmade = self.unmade[self.now]
        self.undo = _random_states(self.shown.values()) if self.now == "released" else []
        self.before = [(value, _state(value)) for value in agreed.values()] if self.now == "solved" else []

    def _visible(self) -> dict:
        """What cells have bound, without the names that IPython keeps for itself."""
        return {name: value for name, value in self.shell.user_ns.items() if name not in self.shell.user_ns_hidden}


def _random_states(values) -> list[tuple]:
    """Functions and their arguments that bring back every random stream: the libraries' and those in `values`."""
    states = [(random.setstate, random.getstate()), (np.random.set_state, np.random.get_state())]
    states.append((torch.set_rng_state, torch.get_rng_state()))
    for value in values:
        if isinstance(value, torch.Generator):
            states.append((value.set_state, value.get_state()))
        elif isinstance(value, np.random.Generator):
            source = value.bit_generator
            states.append((functools.partial(setattr, source, "state"), source.state))
    return states


def _state(value):
    """What a change in place would change, of the kinds of values that chapters share: models, tensors, containers."""
    if isinstance(value, torch.nn.Module):
        weights = [_state(tensor) for tensor in (*value.parameters(), *value.buffers())]
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in value.modules())
        return value.training, hooks, weights, getattr(getattr(value, "config", None), "_attn_implementation", None)
    if isinstance(value, torch.Tensor):
        return None if value.is_inference() else value._version
    return len(value) if isinstance(value, list | dict | set) else None


def load_ipython_extension(shell) -> None:
    """`%load_ext autograde.authoring.lineages`: from here on there are two runs."""
    shell.register_magic_function(Lineages(shell).switch, "line", "lineage")

"""Errors for the person at the keyboard: a notebook shows the sentence and no traceback."""

from __future__ import annotations


class PlainError(RuntimeError):
    """An error whose message says all that its reader needs."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ModelMissing(PlainError):
    """A model, or the text, is not on this machine and can't be had now. The message says what to do."""

"""Stands in for `autograde.check` inside the sandbox: learners' cells may import and call it, and it knows nothing."""

from __future__ import annotations

__all__ = ["check", "grade", "public_seed"]


def check(implementation=None, *, hidden: bool = False) -> float:
    """Checks run outside. Always 0.0."""
    return 0.0


def grade(*args, **kwargs) -> None:
    """Grading happens outside."""


def public_seed(*args) -> int:
    """No seed is in here."""
    return 0

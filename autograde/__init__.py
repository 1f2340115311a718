"""Autograded exercises that know the mistakes people make."""

from autograde.check import check

__all__ = ["check"]

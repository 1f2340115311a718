"""Autograded exercises that know the mistakes people make."""

from autograde.check import check
from autograde.unsolved import install

__all__ = ["check"]

install()

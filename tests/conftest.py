"""Which tests may run at the same time: `python course.py test` spreads them over the processors."""

from __future__ import annotations

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the processors have other work

APART = ("test_exercises", "test_notebooks")  # their exercises and chapters share nothing with each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share costly results stay together: those of a module, an exercise, a chapter."""
    for item in items:
        group = item.module.__name__
        if group in APART:
            shared = item.callspec.params
            group += f"/{shared['path'] if 'path' in shared else shared['exercise'].name}"
        item.add_marker(pytest.mark.xdist_group(group))

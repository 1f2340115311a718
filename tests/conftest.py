"""Which tests may run at the same time: `python course.py test` spreads them over the processors."""

from __future__ import annotations

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the processors have other work

APART = ("test_exercises", "test_notebooks")  # their exercises and chapters share nothing with each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share costly results stay together: those of a module, an exercise, a chapter."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    first = {group: place for place, group in reversed(list(enumerate(groups.values())))}
    items.sort(key=lambda item: first[groups[item]])


def _group(item: pytest.Item) -> str:
    module = item.module.__name__
    if module not in APART:
        return module
    shared = item.callspec.params
    return f"{module}/{shared['path'] if 'path' in shared else shared['exercise'].name}"

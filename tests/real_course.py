"""The course's own chapters and notebooks, read and built once for all tests of a process."""

from __future__ import annotations

import functools

from autograde.authoring import build
from autograde.authoring.chapter import Chapter, all_chapters
from autograde.repository import ROOT


@functools.cache
def chapters() -> list[Chapter]:
    """Every chapter, in their order."""
    return all_chapters(ROOT)


@functools.cache
def sources() -> dict:
    """The notebooks with solutions, by the chapter's path."""
    return build.sources(ROOT)

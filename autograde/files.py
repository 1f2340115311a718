"""Write a file in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

FULL = "The disk is full. Make room and run the same command again: what is done is kept."


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Put `text` into the file, UTF-8 with plain line ends, so that nobody ever reads half of it.

    Folders above are made. Whatever goes wrong, the file that was there stays, and nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    except OSError as error:
        error.filename = str(path)  # not the new one's, which nobody knows
        raise
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(new, mode)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def in_words(error: OSError) -> str:
    """What was in the way, and what to do, for whoever ran a command."""
    where = error.filename if isinstance(error.filename, str) else "A file or folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FULL
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = error.strerror.lower()
        return f"{where} can't be used ({why}). Change that and run the same command again: what is done is kept."
    return str(error)

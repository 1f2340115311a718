"""Write a file in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Put `text` into the file, UTF-8 with plain line ends, so that nobody ever reads half of it.

    Folders above are made. Whatever goes wrong, the file that was there stays, and nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(new, mode)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise

"""Small JSON files in the user's data folder, which several programs may read and write at once.

The folder is the user's data folder, or LABKIT_HOME. A file is replaced whole and under a lock, so that a crash or two
writers at once lose nothing; a damaged one is set aside. LABKIT_NO_PROGRESS=1 turns all keeping off. Needs no torch.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Kept", "folder", "is_off", "locked", "read", "write"]


def is_off() -> bool:
    """Whether nothing is to be read or kept on this machine."""
    return os.environ.get("LABKIT_NO_PROGRESS", "0") not in ("", "0")


def folder() -> Path:
    """Where the files are. It need not be there yet."""
    if chosen := os.environ.get("LABKIT_HOME"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("transformer-course", appauthor=False)


def read(name: str, fit: Callable[[Any], Any]) -> Any:
    """What `name`.json holds, passed through `fit`; None where it isn't there.

    A file that is no JSON, or on which `fit` raises ValueError, TypeError, KeyError or AttributeError, is damaged: it
    is renamed, so that it is neither lost nor in the way. Raises OSError where it can't be read.
    """
    path = folder() / f"{name}.json"
    try:
        return fit(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(".damaged.json"))
        return None


def write(name: str, value: Any) -> None:
    """Replace `name`.json by `value` in one step. Raises OSError."""
    descriptor, new = tempfile.mkstemp(dir=folder(), prefix=f".{name}-", suffix=".json")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, sort_keys=True, ensure_ascii=False)
        os.replace(new, folder() / f"{name}.json")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One writer of `name`.json at a time. The system drops the lock when its holder dies; without locks it goes on."""
    with open(folder() / f"{name}.lock", "a+b") as file:
        with contextlib.suppress(OSError):
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Kept:
    """One such file that holds a dict. Where the disk can't be written, what changes lives as long as the process.

    name:  the file's, without the ending
    empty: what it holds at first
    fit:   raises ValueError, TypeError, KeyError or AttributeError for what the file should not hold
    """

    def __init__(self, name: str, empty: dict, fit: Callable[[dict], Any]):
        self.name, self._fit, self._own = name, fit, copy.deepcopy(empty)
        self._empty, self._unwritten = empty, False

    def load(self) -> dict:
        """What is kept now; a copy."""
        if not (is_off() or self._unwritten):
            with contextlib.suppress(OSError):
                return self._read()
        return copy.deepcopy(self._own)

    def change(self, edit: Callable[[dict], None]) -> bool:
        """Let `edit` change what is kept, under the lock. False where that could not be written, and lives on here."""
        edited = False
        if not is_off():
            with contextlib.suppress(OSError):
                folder().mkdir(parents=True, exist_ok=True)
                with locked(self.name):
                    self._own = self._own if self._unwritten else self._read()
                    edit(self._own)
                    edited = True
                    write(self.name, self._own)
                    self._unwritten = False
                    return True
        if not edited:
            edit(self._own)
        self._unwritten = not is_off()
        return False

    def _read(self) -> dict:
        found = read(self.name, self._checked)
        return copy.deepcopy(self._empty) if found is None else found

    def _checked(self, value: Any) -> dict:
        if not isinstance(value, dict):
            raise TypeError("not a dict")
        self._fit(value)
        return value

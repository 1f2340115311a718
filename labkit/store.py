"""Small JSON files of what a learner did, in one folder on this machine. Nothing leaves it.

The folder is the user's data folder, or LABKIT_HOME. A file is replaced whole and under a lock, so that a crash or two
notebooks at once lose nothing; a damaged one is set aside. LABKIT_NO_PROGRESS=1 turns all of it off. It needs no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def is_off() -> bool:
    """Whether nothing is to be kept: LABKIT_NO_PROGRESS=1."""
    return os.environ.get("LABKIT_NO_PROGRESS", "0") not in ("", "0")


def folder() -> Path:
    """Where the files are."""
    if chosen := os.environ.get("LABKIT_HOME"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("transformer-course", appauthor=False)


class Store:
    """The file NAME.json, a dict by the names of exercises.

    `made` makes an entry of what stands in the file, and raises ValueError, TypeError, KeyError or AttributeError where
    it can't: then the file is renamed NAME.damaged.json, so that it is neither lost nor in the way.
    """

    def __init__(self, name: str, made: Callable[[Any], Any]):
        self.name, self._made = name, made

    def read(self) -> dict[str, Any]:
        """What the file holds, {} where there is none, none is wanted or it is damaged. Raises OSError."""
        if is_off():
            return {}
        path = folder() / f"{self.name}.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return {str(name): self._made(entry) for name, entry in stored.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            with contextlib.suppress(OSError):
                os.replace(path, path.with_suffix(".damaged.json"))
            return {}

    def change(self, changed: Callable[[dict[str, Any]], None]) -> bool:
        """Let `changed` change what the file holds. False where that can't be kept; never raises OSError."""
        if is_off():
            return False
        try:
            folder().mkdir(parents=True, exist_ok=True)
            with self._lock():
                entries = self.read()
                before = json.dumps(entries)
                changed(entries)
                if json.dumps(entries) != before:
                    self._write(entries)
        except OSError:
            return False
        return True

    def _write(self, entries: dict[str, Any]) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder(), prefix=f".{self.name}-", suffix=".json")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=1, sort_keys=True)
            os.replace(name, folder() / f"{self.name}.json")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time. The system drops the lock when its holder dies; without locks it goes on."""
        with open(folder() / f"{self.name}.lock", "a+b") as file:
            with contextlib.suppress(OSError):
                if os.name == "nt":
                    import msvcrt

                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                else:
                    import fcntl

                    fcntl.flock(file, fcntl.LOCK_EX)
            yield

"""A regrade goes on where it was interrupted, unless it would mix what two states of an exercise give."""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib
from collections.abc import Callable

from autograde.classroom.folder import Course
from autograde.files import replace


class Regrade:
    """A regrade that may be interrupted: what it is about, and who is done. It is in results/ until all are."""

    def __init__(self, course: Course, section: str, scope: list):
        self.path = course.root / "results" / f"{section}.regrade.json"
        self.what = {"scope": scope, "exercises": version()}
        self.began = ""

    def begin(self, before: dict[str, dict], say: Callable[[str], None]) -> set[str]:
        """Begin, or go on with the one that was interrupted; gives who is done."""
        found = self._found()
        if found and {key: found.get(key) for key in self.what} == self.what:
            self.began = found["began"]
            done = {student for student, result in before.items() if result.get("regrade") == self.began}
            say(f"going on with the regrade that began at {self.began}: {len(done)} are done")
            return done
        if found:
            why = "the exercises have changed" if found.get("scope") == self.what["scope"] else "it was another one"
            say(f"the regrade that began at {found.get('began')} was not finished; {why}, so this begins anew")
        self.began = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S.%f UTC}"
        replace(self.path, json.dumps(self.what | {"began": self.began}) + "\n")
        return set()

    def tell(self, say: Callable[[str], None]) -> set[str]:
        """For a run that is no regrade: say that one was interrupted."""
        if found := self._found():
            say(f"a regrade that began at {found.get('began')} was interrupted: --regrade goes on with it")
        return set()

    def end(self) -> None:
        """All of it is graded."""
        self.path.unlink(missing_ok=True)

    def _found(self) -> dict:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}


def version() -> str:
    """What tells one state of the course's exercises and of their judging from another."""
    package = pathlib.Path(__file__).parent.parent
    whole = hashlib.sha256()
    for path in sorted([*package.glob("exercises/**/*.py"), *package.glob("judging/**/*.py")]):
        whole.update(path.read_bytes())
    return whole.hexdigest()

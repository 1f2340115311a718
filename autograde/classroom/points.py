"""What exercises are worth after the release: `points.json` in the course folder.

A teacher changes an exercise's points, or drops it (0 points), for the whole class. Scores are scaled from the result
that is there, so that nothing is graded again.
"""

from __future__ import annotations

import json

from autograde.classroom.folder import Course
from autograde.files import replace


class Points:
    """The points that a teacher has changed in a section, by exercise."""

    def __init__(self, course: Course, section: str):
        """Raises ValueError where points.json is damaged."""
        self.path, self.section = course.root / "points.json", section
        try:
            self._all = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
            mine = self._all.setdefault(section, {"points": {}, "kept": {}})
            self.changed: dict[str, float] = mine["points"]
            self.kept: dict[str, dict[str, list]] = mine["kept"]  # exercise -> student -> manual score, extra credit
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{self.path} is damaged: restore it, or remove it to have the release's points."
            ) from None

    def save(self) -> None:
        """Write points.json."""
        replace(self.path, json.dumps(self._all, indent=1) + "\n")

    def worth(self, report: dict) -> tuple[float, float]:
        """(the points that there are, those earned) of one exercise's report, as a teacher wants them."""
        there = float(report["points"])
        most = float(self.changed.get(report["exercise"], there))
        return most, round(float(report["earned"]) * (most / there if there else 0.0), 6)

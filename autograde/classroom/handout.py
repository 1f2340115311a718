"""What the process that hands tasks out gives to those that grade: it needs neither torch nor exercises."""

from __future__ import annotations

from autograde.classroom.task import Task


def grade_task(task: Task) -> dict:
    """`autograde.classroom.trusted.grade_student`, imported where it runs and not where it is handed out."""
    from autograde.classroom.trusted import grade_student

    return grade_student(task)

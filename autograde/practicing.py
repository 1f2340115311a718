"""What a learner calls in a notebook to practice for the interview."""

from autograde.practice.notebook import drill, interview

__all__ = ["drill", "interview"]

"""What a good answer to a question says, point by point, made from its card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Point", "rubric"]

MOST_DEPTH = 8  # points: nobody says more in a few minutes
_SENTENCE = {"en": re.compile(r"(?<=[.!?])\s+(?=[A-Z\"(*`])"), "zh": re.compile(r"(?<=[。！？])\s*")}


@dataclass(frozen=True)
class Point:
    """One thing to have said. kind: short (in the first 30 seconds), depth, or trap. text: markdown."""

    kind: str
    text: str


def rubric(entry: dict[str, Any], lang: str) -> list[Point]:
    """The points of a question of the bank: the sentences of the short answer, the depth's items, and the trap."""
    short = _joined([one.strip() for one in _SENTENCE[lang].split(entry["short"][lang].strip()) if one.strip()], lang)
    depth = _items(entry["depth"][lang])[:MOST_DEPTH]
    return [
        *(Point("short", one) for one in short),
        *(Point("depth", one) for one in depth),
        Point("trap", " ".join(entry["trap"][lang].split())),
    ]


def _joined(sentences: list[str], lang: str) -> list[str]:
    """Sentences, of which one that is too short to say much stands with the next."""
    shortest, between = (12, "") if lang == "zh" else (40, " ")
    found: list[str] = []
    for one in sentences:
        if found and len(found[-1]) < shortest:
            found[-1] += between + one
        else:
            found.append(one)
    return found


def _items(text: str) -> list[str]:
    """The list items and paragraphs of a markdown text; tables and what is only a formula are none."""
    blocks: list[list[str]] = [[]]
    for line in text.strip().splitlines():
        if not line.strip():
            blocks.append([])
        elif line.startswith("* "):
            blocks.append([line[2:].strip()])
        elif not line.lstrip().startswith("|"):
            blocks[-1].append(line.strip())
    texts = [re.sub(r"\$\$(.+?)\$\$", r"$\1$", " ".join(block)) for block in blocks]
    return [text for text in texts if re.sub(r"\$[^$]*\$", "", text).strip()]

"""Which submissions resemble each other: a list to look at, never a verdict.

Names, comments and layout don't count: a notebook becomes the sequence of its token kinds (pygments), and two of them
are compared by RapidFuzz. Short correct solutions resemble each other anyway, so a pair is listed by how far it
stands above what is usual in this class for the same notebook.
"""

from __future__ import annotations

import keyword
from dataclasses import dataclass

_LEAST_TOKENS = 60
_LEAST = 0.85


@dataclass(frozen=True)
class Pair:
    """Two students' solutions of one notebook. `ratio` is 1 for the same tokens; `usual` is the class's median."""

    notebook: str
    one: str
    other: str
    ratio: float
    usual: float
    same_text: bool


def pairs(results: dict[str, dict], most: int = 30) -> list[Pair]:
    """The pairs that resemble each other most, at most `most` of them."""
    found = []
    for name in sorted({n for r in results.values() for n in r["notebooks"]}):
        found += _pairs_of(name, {s: _texts(r["notebooks"].get(name)) for s, r in results.items()})
    found.sort(key=lambda p: (-p.same_text, -(p.ratio - p.usual), p.notebook, p.one, p.other))
    return found[:most]


def _pairs_of(name: str, texts: dict[str, dict[str, str]]) -> list[Pair]:
    """One notebook's pairs: the mean over the exercises that both have solved, each by its length."""
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    students = sorted(texts)
    alike, weight = (np.zeros((len(students), len(students)), dtype=np.float32) for _ in range(2))
    for exercise in sorted({e for parts in texts.values() for e in parts}):
        coded = [tokens(texts[s].get(exercise, "")) for s in students]
        ratios = process.cdist(coded, coded, scorer=Indel.normalized_similarity, dtype=np.float32, workers=-1)
        lengths = np.array([len(text) for text in coded], dtype=np.float32)
        both = np.minimum(lengths[:, None], lengths[None])
        alike, weight = alike + both * ratios, weight + both
    judged = np.triu(weight >= _LEAST_TOKENS, 1)
    alike = alike / np.maximum(weight, 1)
    usual = float(np.median(alike[judged])) if judged.any() else 0.0
    return [
        Pair(name, students[i], students[j], float(alike[i, j]), usual, _same(texts[students[i]], texts[students[j]]))
        for i, j in zip(*np.nonzero(judged & (alike >= _LEAST)), strict=True)
    ]


def _same(one: dict[str, str], other: dict[str, str]) -> bool:
    return [text.split() for text in one.values()] == [text.split() for text in other.values()]


def _texts(notebook: dict | None) -> dict[str, str]:
    """The learner's own code by exercise: not what still is the release's stub. Added cells count as one more."""
    if notebook is None:
        return {}
    found = {name: text for name, text in sorted(notebook["solutions"].items()) if "# YOUR CODE HERE" not in text}
    return found | ({"": "\n".join(notebook["added"])} if notebook["added"] else {})


def tokens(text: str) -> str:
    """A text's tokens as one character each: keywords and signs as they are, names and numbers as kinds."""
    from pygments.lexers import PythonLexer
    from pygments.token import Comment, Literal, Name, Token

    coded = []
    for kind, value in PythonLexer().get_tokens(text):
        if kind in Comment or kind in Literal.String or kind in Token.Text or not value.strip():
            continue
        if keyword.iskeyword(value):
            coded.append(chr(0x4E00 + sum(map(ord, value))))
        elif kind in Name:
            coded.append("N")
        elif kind in Literal:
            coded.append("1")
        else:
            coded.append(value[0])
    return "".join(coded)

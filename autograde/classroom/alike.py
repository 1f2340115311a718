"""Which submissions resemble each other: a list to look at, never a verdict.

Names, comments and layout don't count: a notebook becomes the sequence of its token kinds (pygments), and two of them
are compared by RapidFuzz. Short correct solutions resemble each other anyway, so a pair is listed by how far it
stands above what is usual in this class for the same notebook.
"""

from __future__ import annotations

import itertools
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
        texts = {s: _text(r["notebooks"][name]) for s, r in results.items() if name in r["notebooks"]}
        found += _pairs_of(name, texts)
    found.sort(key=lambda p: (-p.same_text, -(p.ratio - p.usual), p.notebook, p.one, p.other))
    return found[:most]


def _pairs_of(name: str, texts: dict[str, str]) -> list[Pair]:
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    students = sorted(s for s, text in texts.items() if len(tokens(text)) >= _LEAST_TOKENS)
    if len(students) < 2:
        return []
    coded = [tokens(texts[s]) for s in students]
    ratios = process.cdist(coded, coded, scorer=Indel.normalized_similarity, dtype=np.float32, workers=-1)
    usual = float(np.median(ratios[np.triu_indices(len(students), 1)]))
    found = []
    for i, j in itertools.combinations(range(len(students)), 2):
        if ratios[i, j] >= _LEAST:
            same = texts[students[i]].split() == texts[students[j]].split()
            found.append(Pair(name, students[i], students[j], float(ratios[i, j]), usual, same))
    return found


def _text(notebook: dict) -> str:
    """The learner's own code: not what still is the release's stub."""
    solutions = [text for _, text in sorted(notebook["solutions"].items()) if "# YOUR CODE HERE" not in text]
    return "\n".join([*solutions, *notebook["added"]])


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

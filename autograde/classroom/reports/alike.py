"""Which submissions resemble each other: a list to look at, never a verdict.

Names, comments and layout don't count: a notebook becomes the sequence of its token kinds (pygments), and two of them
are compared by RapidFuzz. Short correct solutions resemble each other anyway, so two are alike only where they stand
well above what is usual in this class for the same notebook. Who is alike by way of others is in one group with them:
a solution that went round is one row, however many have it, and no row is left out.
"""

from __future__ import annotations

import keyword
from collections import defaultdict
from dataclasses import dataclass

_LEAST_TOKENS = 60
_LEAST = 0.85


@dataclass(frozen=True)
class Group:
    """Students whose solutions of one notebook resemble each other: each one's at least one other's.

    `least` and `most` are of the pairs that do, 1 for the same tokens; `usual` is the median of the class's pairs.
    `same_text` holds those who have the very same text.
    """

    notebook: str
    students: tuple[str, ...]
    least: float
    most: float
    usual: float
    same_text: tuple[tuple[str, ...], ...] = ()


def groups(results: dict[str, dict]) -> list[Group]:
    """All groups of all notebooks, the most striking first."""
    found = []
    for name in sorted({n for r in results.values() for n in r["notebooks"]}):
        found += _groups_of(name, {s: _texts(r["notebooks"].get(name)) for s, r in results.items()})
    return sorted(found, key=lambda g: (not g.same_text, g.usual - g.most, g.notebook, g.students))


def _groups_of(name: str, texts: dict[str, dict[str, str]]) -> list[Group]:
    """A notebook's groups. Ratios are means over the exercises that both have solved, by their lengths."""
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
    judged = weight >= _LEAST_TOKENS
    np.fill_diagonal(judged, False)
    alike = alike / np.maximum(weight, 1)
    usual = float(np.median(alike[judged])) if judged.any() else 0.0
    near = judged & (alike >= max(_LEAST, (1 + usual) / 2) - 1e-6)
    found = []
    for members in _connected([row.nonzero()[0].tolist() for row in near]):
        ratios = alike[np.ix_(members, members)][near[np.ix_(members, members)]]
        names = tuple(students[i] for i in members)
        same = _same_text({s: texts[s] for s in names})
        found.append(Group(name, names, float(ratios.min()), float(ratios.max()), usual, same))
    return found


def _connected(near: list[list[int]]) -> list[list[int]]:
    """Who is near whom -> the sets that hang together, of two at least, sorted."""
    found, left = [], {i for i, others in enumerate(near) if others}
    while left:
        members, waiting = set(), [min(left)]
        while waiting:
            one = waiting.pop()
            if one not in members:
                members.add(one)
                waiting += near[one]
        left -= members
        found.append(sorted(members))
    return found


def _same_text(texts: dict[str, dict[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Those who have one text, layout aside."""
    known = defaultdict(list)
    for student, parts in texts.items():
        known[tuple(tuple(text.split()) for text in parts.values())].append(student)
    return tuple(tuple(students) for students in known.values() if len(students) > 1)


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

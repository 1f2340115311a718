"""What the class report lists as alike: every copy, in groups, and nothing that is usual in the class."""

from __future__ import annotations

import random
import re

from autograde.classroom.reports.alike import groups
from autograde.classroom.reports.classreport import _alike


def solution(seed: int) -> str:
    """A solution of its own: twenty statements, each of a kind that chance chose."""
    lines = [
        "a = b + c",
        "if a: b()",
        "for x in y: z[x] = a",
        "assert a < b",
        "return",
        "c = [a, *b]",
        "del a.b, c.d.e",
    ]
    lines += ["with a as b: c", "while not a: b -= -c", "d = lambda x: x ** 2", "e = {a: b for a in c}"]
    return "\n".join(random.Random(seed).choices(lines, k=20))


def renamed(text: str) -> str:
    return re.sub(r"\ba\b", "first", text).replace(" = ", "=") + "\n# my own"


def results(texts: dict[str, str]) -> dict[str, dict]:
    return {s: {"notebooks": {"01_a": {"solutions": {"f": text}, "added": []}}} for s, text in texts.items()}


def test_every_copy_is_listed_once_however_many_there_are():
    texts = {f"alone{n:02}": solution(n) for n in range(20)}
    for n in range(40):  # more pairs than a list for people should have
        texts |= {f"pair{n:02}": solution(100 + n), f"twin{n:02}": solution(100 + n)}
    texts |= {f"round{n:02}": solution(500) for n in range(12)} | {"round99": renamed(solution(500))}
    found = groups(results(texts))
    assert sorted(student for group in found for student in group.students) == sorted(texts)[20:]
    sizes = sorted(len(group.students) for group in found)
    assert sizes == [2] * 40 + [13]
    largest = max(found, key=lambda group: len(group.students))
    assert largest.same_text == (tuple(f"round{n:02}" for n in range(12)),), "the one that was renamed has another text"
    assert largest.most == 1 and largest.usual < 0.85


def test_what_the_whole_class_writes_is_one_row_and_not_a_pair_for_each_two():
    one = groups(results({f"s{n:02}": solution(1) for n in range(50)}))
    assert [len(group.students) for group in one] == [50] and one[0].usual == 1


def test_short_solutions_and_different_ones_are_not_listed():
    assert groups(results({"ada": "return x", "bob": "return x"})) == []
    assert groups(results({f"s{n}": solution(n) for n in range(20)})) == []
    assert "No two submissions" in _alike(results({}))[0]


def test_a_row_names_the_students_and_who_has_the_same_text():
    rows = _alike(results({"ada": solution(1), "bob": solution(1), "cleo": renamed(solution(1)), "dan": solution(2)}))
    assert "<td>ada · bob · cleo</td><td>100%</td>" in rows[1] and "<td>ada · bob</td></tr>" in rows[1]
    rows = _alike(results({"Doe, Jo": solution(1), "O'Neil": solution(1)}))
    assert "<td>Doe, Jo · O&#x27;Neil</td>" in rows[1] and "<td>all</td>" in rows[1]

"""The interview bank: reading interview/*.yaml, and finding what is wrong in it."""

from __future__ import annotations

import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

SECTIONS = ("transformer", "applications", "data_parallel")
VERDICTS = {
    "correct": "正确",
    "imprecise": "不严谨",
    "wrong": "错误",
    "outdated": "已过时",
    "unverifiable": "无法证实",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the same values, many times as fast
    """Refuses a key that stands there twice, of which YAML would drop the first in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if twice := [key for key, count in Counter(map(str, keys)).items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_BOTH = {"en": str, "zh": str}
_NUMBER = re.compile(r"\{([A-Z]\d\d\.\d+):(\w+)\}")  # {T06.2:gap}, a number from experiments/results/T06.2.json
_ANSWER = {
    "short": _BOTH,
    "depth": _BOTH,
    "follow_ups": [{"id": str, "q": _BOTH, "a": _BOTH}],
    "trap": _BOTH,
    "claims": [{"id": str, "says": _BOTH, "verdict": str, "right": _BOTH, "source": str}],
}


class Bank:
    """The questions by id, and every claim of theirs by id. What is wrong in the bank stands in `problems`."""

    def __init__(self, entries: list[dict[str, Any]], problems: list[str] | None = None):
        self.entries = entries
        self.questions = {entry["id"]: entry for entry in entries}
        claims = [claim for entry in entries for claim in _list(entry.get("claims")) if isinstance(claim, dict)]
        self.claims = {claim.get("id", ""): claim for claim in claims}
        self.problems = [*(problems or []), *self._twice(claims), *(p for entry in entries for p in _misfits(entry))]

    def is_full(self, question: str) -> bool:
        """Whether a question has its whole answer."""
        return question in self.questions and _ANSWER.keys() <= self.questions[question].keys()

    def _twice(self, claims: list[dict]) -> list[str]:
        parts = [*claims, *(f for entry in self.entries for f in _list(entry.get("follow_ups")) if isinstance(f, dict))]
        ids = Counter([entry["id"] for entry in self.entries] + [str(part.get("id")) for part in parts])
        return [f"interview/: {name} stands there {count} times." for name, count in ids.items() if count > 1]


def load(root: pathlib.Path) -> Bank:
    """The bank of the three sections, in the bank's order. What can't be read is told in the bank's `problems`."""
    entries, problems = [], []
    for section in SECTIONS:
        try:
            content = yaml.load((root / "interview" / f"{section}.yaml").read_text(encoding="utf-8"), _Loader)
        except FileNotFoundError:
            problems.append(f"interview/{section}.yaml is missing.")
        except yaml.YAMLError as error:
            problems.append(f"interview/{section}.yaml is not YAML: {' '.join(str(error).split())}.")
        else:
            fit = [e for e in _list(content) if isinstance(e, dict) and isinstance(e.get("id"), str)]
            entries += fit
            if content is not None and len(fit) != len(content):
                problems.append(f"interview/{section}.yaml should be a list of entries that each have an id.")
    filled = [_filled(entry, root, problems) for entry in entries]
    for follow_up in (one for entry in filled for one in _list(entry.get("follow_ups")) if isinstance(one, dict)):
        _add_source(follow_up)
    return Bank(filled, problems)


def _add_source(follow_up: dict[str, Any]) -> None:
    """A follow-up's source, where it has one, stands under its answer wherever that is shown."""
    source, answer = follow_up.get("source"), follow_up.get("a")
    if isinstance(source, str) and isinstance(answer, dict):
        follow_up["a"] = {language: f"{str(text).strip()}\n\n*{source}*" for language, text in answer.items()}


def grounds(claim: dict[str, Any], language: str) -> str:
    """On what a claim's verdict rests: its source and, where no run settles it, why none does."""
    why, begins = claim.get("no_run"), {"en": "No run.", "zh": "没有实验。"}
    return " ".join([claim["source"].strip(), *([begins[language], why[language].strip()] if why else [])])


def _filled(value: Any, root: pathlib.Path, problems: list[str]) -> Any:
    """The entry with every `{claim:name}` in its texts replaced by the number of the claim's result."""
    if isinstance(value, dict):
        filled = {key: _filled(item, root, problems) for key, item in value.items()}
        return {key: _unspaced(item) if key == "zh" else item for key, item in filled.items()}
    if isinstance(value, list):
        return [_filled(item, root, problems) for item in value]
    if not isinstance(value, str):
        return value

    def number(found: re.Match) -> str:
        claim, name = found.groups()
        try:
            result = json.loads((root / "experiments" / "results" / f"{claim}.json").read_text(encoding="utf-8"))
            return str(result["numbers"][name])
        except (OSError, ValueError, KeyError):
            problems.append(f"interview/: {found.group()} is no number of an experiment's result.")
            return found.group()

    return _NUMBER.sub(number, value)


_WIDE = "，。：；？！（）、“”《》"
_CHINESE = f"\u4e00-\u9fff{_WIDE}"
# Where YAML and markdown make a space of a line's end, which Chinese has none of: between two signs of it, and between
# its punctuation and a word. What begins a line of markdown (a list, a table) keeps its line.
_SPACE = re.compile(rf"(?<=[{_CHINESE}])[ \n] *(?=[{_CHINESE}])|(?<=[{_WIDE}])(?:\n *(?=[A-Za-z`$])| +(?=[\w`$+−]))")


_RANGE = re.compile(r"(?<=\d) to (?=[+−-]?\d)")  # as results write an interval


def _unspaced(text: Any) -> Any:
    return _RANGE.sub(" 到 ", _SPACE.sub("", text)) if isinstance(text, str) else text


def _misfits(entry: dict[str, Any]) -> Iterator[str]:
    """What is missing in one entry: the question in both languages, and all parts of an answer once it has one."""
    question = entry["id"]
    shape = {**_BOTH, **(_ANSWER if _ANSWER.keys() & entry.keys() else {})}
    yield from _unlike(entry, shape, f"interview/: {question}")
    for claim in _list(entry.get("claims")):
        name, verdict = (claim.get("id"), claim.get("verdict")) if isinstance(claim, dict) else (None, None)
        if isinstance(name, str) and not name.startswith(f"{question}."):
            yield f"interview/: claim {name} stands under {question}, so its id should begin with {question}."
        if isinstance(verdict, str) and verdict not in VERDICTS:
            yield f"interview/: claim {name} has the verdict {verdict!r}; there are {', '.join(VERDICTS)}."
    for number, follow_up in enumerate(_list(entry.get("follow_ups")), start=1):
        name = follow_up.get("id") if isinstance(follow_up, dict) else None
        if isinstance(name, str) and not re.fullmatch(rf"{question}\.f\d+", name):
            yield f"interview/: {question}, follow_ups {number} has the id {name!r}; it should be like {question}.f1."
    if not all(isinstance(names, list) and names for names in (entry.get("exercises") or {}).values()):
        yield f"interview/: {question}, exercises should give each chapter's path a list of exercises."


def _unlike(value: Any, shape: Any, where: str) -> Iterator[str]:
    if shape is str:
        if not (isinstance(value, str) and value.strip()):
            yield f"{where} is not a text, or is empty."
    elif isinstance(shape, list):
        if not _list(value):
            yield f"{where} is not a list, or is empty."
        for number, item in enumerate(_list(value), start=1):
            yield from _unlike(item, shape[0], f"{where} {number}")
    elif not isinstance(value, dict):
        yield f"{where} should have {', '.join(shape)}."
    else:
        for key, inner in shape.items():
            yield from _unlike(value.get(key), inner, f"{where}, {key}")


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []

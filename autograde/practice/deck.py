"""The bank's questions, follow-ups and quoted sentences as cards, each with an id that outlives its wording."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograde.authoring import bank
from autograde.authoring.bank import VERDICTS, Bank
from autograde.practice.words import WORDS
from autograde.repository import ROOT

__all__ = ["Card", "LANGUAGES", "cards", "chapters", "questions_on", "the_bank"]

LANGUAGES = ("en", "zh")
KINDS = ("question", "follow-up", "claim")


@dataclass(frozen=True)
class Card:
    """One thing to know.

    id:       the bank's own: T04, T04.f2 (a follow-up) or T04.3 (a sentence of the study notes)
    question: the id of its question
    section:  transformer, applications or data_parallel
    kind:     question, follow-up or claim
    front, back: markdown by language
    exercises:   the question's exercises by chapter, such as {"01_transformer/04_rope": ["apply_rope"]}
    """

    id: str
    question: str
    section: str
    kind: str
    front: dict[str, str]
    back: dict[str, str]
    exercises: dict[str, list[str]]


def the_bank(root: Path = ROOT) -> Bank:
    """The bank that lies beside the course. ValueError, in one sentence, where it doesn't or is damaged."""
    found = bank.load(root)
    if found.problems:
        raise ValueError(f"the question bank can't be read: {found.problems[0]}")
    return found


def cards(questions: Bank) -> list[Card]:
    """Every card, in the bank's order: a question, its follow-ups, then the sentences that study notes have on it."""
    return [card for entry in questions.entries if questions.is_full(entry["id"]) for card in _of(entry)]


def _of(entry: dict[str, Any]) -> Iterable[Card]:
    section = _section(entry["id"])
    chapters_ = entry.get("exercises") or {}

    def card(name: str, kind: str, front: dict, back: dict) -> Card:
        return Card(name, entry["id"], section, kind, front, back, chapters_)

    yield card(entry["id"], "question", _both(lambda lang: entry[lang]), _both(lambda lang: _whole(entry, lang)))
    for one in entry["follow_ups"]:
        yield card(one["id"], "follow-up", one["q"], one["a"])
    for one in entry["claims"]:
        yield card(
            one["id"], "claim", _both(lambda lang, o=one: _asked(o, lang)), _both(lambda lang, o=one: _judged(o, lang))
        )


def _both(text) -> dict[str, str]:
    return {lang: text(lang).strip() for lang in LANGUAGES}


def _whole(entry: dict[str, Any], lang: str) -> str:
    words, parts = WORDS[lang], ("depth", "trap")
    told = [f"**{words[part]}**\n\n{entry[part][lang].strip()}" for part in parts]
    return "\n\n".join([entry["short"][lang].strip(), *told])


def _asked(claim: dict[str, Any], lang: str) -> str:
    return f"{WORDS[lang]['is it true']}\n\n> {claim['says'][lang].strip()}"


def _judged(claim: dict[str, Any], lang: str) -> str:
    verdict = VERDICTS[claim["verdict"]] if lang == "zh" else claim["verdict"].capitalize()
    stop = "。" if lang == "zh" else "."
    return f"**{verdict}{stop}** {claim['right'][lang].strip()}\n\n*{claim['source'].strip()}*"


def _section(question: str) -> str:
    return next(section for section in bank.SECTIONS if section[0].upper() == question[0])


def chapters(questions: Bank) -> dict[str, list[str]]:
    """Every chapter that answers something ("01_transformer/04_rope"), with the ids of its questions."""
    found: dict[str, list[str]] = {}
    for entry in questions.entries:
        for chapter in entry.get("exercises") or {}:
            found.setdefault(chapter, []).append(entry["id"])
    return dict(sorted(found.items()))


def questions_on(topic: str | None, questions: Bank) -> list[str]:
    """The ids of the questions on a topic, in the bank's order; None stands for all of them.

    A topic is a section (applications), a chapter (rope, 04_rope, 01_transformer/04_rope) or a question (T04), or
    several of these with commas between. Raises ValueError, with what was meant or what there is.
    """
    if topic is None:
        return list(questions.questions)
    known: dict[str, set[str]] = {name: {name} for name in questions.questions}
    for name in questions.questions:
        known.setdefault(_section(name), set()).add(name)
    for chapter, asked in chapters(questions).items():
        file = chapter.split("/")[-1]
        for spelled in (chapter, file, file.split("_", 1)[-1]):
            known.setdefault(spelled, set()).update(asked)
    by_key = {_key(name): found for name, found in known.items()}
    wanted: set[str] = set()
    for one in filter(None, (part.strip() for part in topic.split(","))):
        if _key(one) not in by_key:
            near = difflib.get_close_matches(_key(one), by_key, 1)
            meant = next((name for name in known if near and _key(name) == near[0]), "")
            hint = f"did you mean {meant}?" if meant else f"take {', '.join(bank.SECTIONS)}, a chapter or a question."
            raise ValueError(f"there is no topic {one!r}: {hint}")
        wanted |= by_key[_key(one)]
    if not wanted:
        raise ValueError(
            f"name a topic: {', '.join(bank.SECTIONS)}, a chapter such as rope, or a question such as T04."
        )
    return [name for name in questions.questions if name in wanted]


def _key(name: str) -> str:
    return name.lower().replace("-", "_")

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

__all__ = ["Card", "LANGUAGES", "cards", "chapters", "on_topic", "questions_on", "the_bank"]

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
    return f"**{verdict}{stop}** {claim['right'][lang].strip()}\n\n*{bank.grounds(claim, lang)}*"


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
    """The ids of the questions on a topic (see `on_topic`), in the bank's order."""
    return on_topic(topic, questions)[0]


def on_topic(topic: str | None, questions: Bank) -> tuple[list[str], list[str]]:
    """The questions on a topic and the chapters, both in the course's order; None stands for all of them.

    A topic is a section (applications), a chapter (rope, 04_rope, 01_transformer/04_rope) or a question (T04), or
    several of these with commas between. Raises ValueError, with what was meant or what there is.
    """
    answers = chapters(questions)
    if topic is None:
        return list(questions.questions), list(answers)
    known: dict[str, tuple[set[str], set[str]]] = {}  # spelled -> its questions, its chapters

    def add(spelled: str, asked: Iterable[str], told: Iterable[str]) -> None:
        found = known.setdefault(spelled, (set(), set()))
        found[0].update(asked)
        found[1].update(told)

    for name, entry in questions.questions.items():
        for spelled in (name, _section(name)):
            add(spelled, [name], entry.get("exercises") or {})
    for chapter, asked in answers.items():
        file = chapter.split("/")[-1]
        for spelled in (chapter, file, file.split("_", 1)[-1]):
            add(spelled, asked, [chapter])
    by_key = {_key(spelled): found for spelled, found in known.items()}
    wanted: tuple[set[str], set[str]] = (set(), set())
    for one in filter(None, (part.strip() for part in topic.split(","))):
        if _key(one) not in by_key:
            near = difflib.get_close_matches(_key(one), by_key, 1)
            meant = next((name for name in known if near and _key(name) == near[0]), "")
            hint = f"did you mean {meant}?" if meant else f"take {', '.join(bank.SECTIONS)}, a chapter or a question."
            raise ValueError(f"there is no topic {one!r}: {hint}")
        for whole, part in zip(wanted, by_key[_key(one)], strict=True):
            whole |= part
    if not wanted[0]:
        raise ValueError(
            f"name a topic: {', '.join(bank.SECTIONS)}, a chapter such as rope, or a question such as T04."
        )
    return [q for q in questions.questions if q in wanted[0]], [c for c in answers if c in wanted[1]]


def _key(name: str) -> str:
    return name.lower().replace("-", "_")

"""The one page at the end of a mock interview: what was right, what comes next, what to repeat."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from autograde.authoring.bank import Bank
from autograde.practice.markup import page_html
from autograde.practice.session import Interview
from autograde.practice.words import WORDS
from autograde.report import escaped

__all__ = ["Section", "as_html", "as_text", "sections"]

FURTHER = 3  # follow-ups of each question
ENOUGH = 3  # a rating from which a question needs no repeating: good

_STYLE = """
:root { color-scheme: light dark; }
body { font: 17px/1.55 system-ui, sans-serif; max-width: 46em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 1.8em; } h3 { font-size: 1em; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15em .6em; vertical-align: top; }
code { font-size: 90%; } pre { white-space: pre-wrap; } summary { cursor: pointer; }
"""


@dataclass
class Section:
    """title, markdown paragraphs, and what can be opened: (summary, markdown).

    page:   HTML that only the page shows
    text:   markdown that only the text shows
    listed: whether the short text lists the summaries of what the page can open
    """

    title: str
    parts: list[str] = field(default_factory=list)
    folds: list[tuple[str, str]] = field(default_factory=list)
    page: str = ""
    text: str = ""
    listed: bool = False


def sections(interview: Interview, bank: Bank) -> list[Section]:
    """All there is to say about a finished interview."""
    words = WORDS[interview.lang]
    return [
        _coding(interview, words),
        *(_question(interview, number, bank, words) for number in range(len(interview.answers))),
        _further(interview, bank, words),
        _repeat(interview, bank, words),
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}".removesuffix(".0")


def _coding(interview: Interview, words: dict[str, Any]) -> Section:
    title = words["task"].format(task=interview.task, chapter=interview.chapter, difficulty=interview.difficulty)
    took = words["took"].format(minutes=_minutes(interview.spent[0]), limit=_minutes(interview.limit(0)))
    result = interview.result
    score = f"**{result['earned']:.3g} / {result['points']:g}** · {took}"
    return Section(title, [score], page=result["html"], text=result["told"])


def _question(interview: Interview, number: int, bank: Bank, words: dict[str, Any]) -> Section:
    answer, lang = interview.answers[number], interview.lang
    told, missed = answer["told"], answer["missed"]
    rating, spent = words["ratings"][answer["rating"] - 1], interview.spent[number + 1]
    line = words["told"].format(told=len(told), all=len(told + missed), rating=rating, minutes=_minutes(spent))
    found = Section(f"{answer['question']} · {bank.questions[answer['question']][lang]}", [line])
    for name, texts in (("right", told), ("missed", missed)):
        if texts:
            found.folds.append((words[name], "\n".join(f"* {text}" for text in texts)))
    return found


def _further(interview: Interview, bank: Bank, words: dict[str, Any]) -> Section:
    lang, found = interview.lang, Section(words["more questions"], listed=True)
    for question in interview.questions:
        for one in bank.questions[question]["follow_ups"][-FURTHER:]:
            found.folds.append((f"{one['id']} · {one['q'][lang]}", one["a"][lang]))
    return found


def _repeat(interview: Interview, bank: Bank, words: dict[str, Any]) -> Section:
    told = []
    if interview.result["earned"] < interview.result["points"]:
        told.append(words["solve"].format(chapter=interview.chapter, task=interview.task))
    for answer in interview.answers:
        if answer["rating"] < ENOUGH or len(answer["told"]) < len(answer["missed"]):
            name = answer["question"]
            chapters = ", ".join(bank.questions[name].get("exercises") or {})
            told += [words["read"].format(question=name, chapters=chapters), words["drill it"].format(question=name)]
    return Section(words["repeat"], ["\n".join(f"* {one}" for one in told) if told else words["all well"]])


def as_text(interview: Interview, found: list[Section], folds: bool = True) -> str:
    """The page as markdown, with what can be opened or without."""
    parts = [f"# {_title(interview)}"]
    for one in found:
        parts += [f"## {one.title}", *one.parts, *filter(None, [one.text])]
        if folds:
            parts += [text for summary, body in one.folds for text in (f"**{summary}**", body)]
        elif one.listed:
            parts.append("\n".join(f"* {summary}" for summary, _ in one.folds))
    return "\n\n".join(parts) + "\n"


def as_html(interview: Interview, found: list[Section], whole: bool = True) -> str:
    """The page as HTML, which needs nothing from the network; with `whole` a document of its own."""
    body = [f"<h1>{html.escape(_title(interview))}</h1>"]
    for one in found:
        body += [f"<h2>{html.escape(one.title)}</h2>", *map(page_html, one.parts), one.page]
        body += [f"<details><summary>{escaped(s)}</summary>{page_html(b)}</details>" for s, b in one.folds]
    if not whole:
        return "\n".join(body)
    lang = {"zh": "zh-CN"}.get(interview.lang, "en")
    return "\n".join([
        f'<!doctype html>\n<html lang="{lang}">\n<head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(_title(interview))}</title>\n<style>{_STYLE}</style></head>\n<body><main>",
        *body,
        "</main></body>\n</html>\n",
    ])  # fmt: skip


def _title(interview: Interview) -> str:
    began = datetime.fromisoformat(interview.began)
    return WORDS[interview.lang]["result"].format(date=f"{began:%Y-%m-%d %H:%M}")

"""The interview bank as markdown: the card of a question, and what stands around a claim's cell."""

from __future__ import annotations

import re
from typing import Any

from autograde.authoring.bank import VERDICTS, grounds

_WORDS = {
    "en": {
        "depth": "In depth",
        "follow_ups": "Follow-up questions",
        "trap": "The trap",
        "claims": "What the usual study notes say, sentence by sentence",
        "head": "| | they say | verdict | rather | source |",
    },
    "zh": {
        "depth": "深入",
        "follow_ups": "追问",
        "trap": "陷阱",
        "claims": "题库里的说法，逐句核对",
        "head": "| | 题库的说法 | 判定 | 更准确的说法 | 出处 |",
    },
}


def claim_quote(claim: dict[str, Any]) -> str:
    """What stands above a claim's cell: the bank's sentence, without the verdict."""
    return f"> **Claim {claim['id']}**: {_line(claim['says']['en'])}\n>\n> {_line(claim['says']['zh'])}"


def claim_verdict(claim: dict[str, Any]) -> str:
    """What a reader opens below a claim's cell."""
    verdict = claim["verdict"]
    return _details(
        "The verdict, and where it comes from",
        f"**{verdict.capitalize()}.** {claim['right']['en'].strip()}\n\n"
        f"**{VERDICTS[verdict]}。** {claim['right']['zh'].strip()}\n\n"
        f"Source: {claim['source'].strip()}",
    )


def card(entry: dict[str, Any]) -> str:
    """One question as a card: the short answer, then everything else to open; the Chinese in one fold of its own."""
    words = _WORDS["en"]
    asked, told = _follow_ups(entry, "en"), _table(entry["claims"], "en")
    return "\n\n".join(
        [
            f"### {entry['id']}: {_line(entry['en'])}\n\n{_line(entry['zh'])}{_exercises(entry)}",
            _details("In 30 seconds", entry["short"]["en"].strip()),
            _details(words["depth"], entry["depth"]["en"].strip()),
            _details(words["follow_ups"], asked),
            _details(words["trap"], entry["trap"]["en"].strip()),
            _details(words["claims"], told),
            _details("中文", _chinese(entry)),
        ]
    )


def _exercises(entry: dict[str, Any]) -> str:
    """A paragraph with the exercises that belong to a question, by chapter; empty where it names none."""
    parts = [
        f"{', '.join(f'`{name}`' for name in names)} ({chapter})"
        for chapter, names in (entry.get("exercises") or {}).items()
    ]
    return f"\n\nBuild it: {'; '.join(parts)}." if parts else ""


def _chinese(entry: dict[str, Any]) -> str:
    words = _WORDS["zh"]
    parts = [
        (words["depth"], entry["depth"]["zh"].strip()),
        (words["follow_ups"], _follow_ups(entry, "zh")),
        (words["trap"], entry["trap"]["zh"].strip()),
        (words["claims"], _table(entry["claims"], "zh")),
    ]
    return "\n\n".join([entry["short"]["zh"].strip(), *(f"**{title}**\n\n{body}" for title, body in parts)])


def _follow_ups(entry: dict[str, Any], language: str) -> str:
    pairs = [(_line(f["q"][language]), f["a"][language].strip()) for f in entry["follow_ups"]]
    return "\n\n".join(f"*{question}*\n\n{answer}" for question, answer in pairs)


def _table(claims: list[dict[str, Any]], language: str) -> str:
    rows = [_row(claim, language) for claim in claims]
    return "\n".join([_WORDS[language]["head"], "|---|---|---|---|---|", *rows])


def _row(claim: dict[str, Any], language: str) -> str:
    verdict = VERDICTS[claim["verdict"]] if language == "zh" else claim["verdict"]
    texts = [claim["id"], claim["says"][language], verdict, claim["right"][language], grounds(claim, language)]
    return f"| {' | '.join(table_cell(text) for text in texts)} |"


def table_cell(text: str) -> str:
    """A text that keeps a table's columns: `|` is escaped, and in a formula, where `\\|` is a norm, spelled out."""
    pieces = re.split(r"(\$[^$]+\$)", _line(text))
    return "".join(p.replace("|", r"\vert " if p.startswith("$") else r"\|") for p in pieces)


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"

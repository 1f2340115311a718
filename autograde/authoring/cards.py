"""The interview bank (interview/*.yaml) and the cells that are made of it."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml

_PARTS = ("short", "depth", "follow_ups", "trap", "claims")


class Bank:
    """The questions by id, and every claim of theirs by id."""

    def __init__(self, entries: list[dict[str, Any]]):
        self.entries = entries
        self.questions = {entry["id"]: entry for entry in entries}
        self.claims = {claim["id"]: claim for entry in entries for claim in entry.get("claims", [])}

    def is_full(self, question: str) -> bool:
        """Whether a question has its whole answer."""
        return question in self.questions and all(part in self.questions[question] for part in _PARTS)


def load(root: pathlib.Path) -> Bank:
    """The bank of the three sections, in the bank's order."""
    entries = []
    for section in ("transformer", "applications", "data_parallel"):
        entries += yaml.safe_load((root / "interview" / f"{section}.yaml").read_text(encoding="utf-8")) or []
    return Bank(entries)


def claim_quote(claim: dict[str, Any]) -> str:
    """What stands above a claim's cell: the bank's sentence, without the verdict."""
    return f"> **Claim {claim['id']}**: {_line(claim['says']['en'])}\n>\n> {_line(claim['says']['zh'])}"


def claim_verdict(claim: dict[str, Any]) -> str:
    """What a reader opens below a claim's cell."""
    return _details(
        "The verdict, and where it comes from",
        f"**{claim['verdict'].capitalize()}.** {claim['right']['en'].strip()}\n\n{claim['right']['zh'].strip()}\n\n"
        f"Source: {claim['source'].strip()}",
    )


def card(entry: dict[str, Any]) -> str:
    """One question as a card: the short answer, then everything else to open."""
    asked = [f"**{_line(f['q']['en'])}**\n\n{f['a']['en'].strip()}" for f in entry["follow_ups"]]
    asked_zh = [f"**{_line(f['q']['zh'])}**\n\n{f['a']['zh'].strip()}" for f in entry["follow_ups"]]
    chinese = [
        entry["short"]["zh"].strip(),
        entry["depth"]["zh"].strip(),
        *asked_zh,
        f"**陷阱**:{entry['trap']['zh'].strip()}",
    ]
    return "\n\n".join(
        [
            f"### {entry['id']}: {entry['en']}\n\n{entry['zh']}",
            _details("In 30 seconds", entry["short"]["en"].strip()),
            _details("In depth", entry["depth"]["en"].strip()),
            _details("Follow-up questions", "\n\n".join(asked)),
            _details("The trap", entry["trap"]["en"].strip()),
            _details("What the usual study notes say, sentence by sentence", _table(entry["claims"])),
            _details("中文", "\n\n".join(chinese)),
        ]
    )


def _table(claims: list[dict[str, Any]]) -> str:
    rows = [
        "| "
        + " | ".join(_cell(x) for x in (c["id"], c["says"]["en"], c["verdict"], c["right"]["en"], c["source"]))
        + " |"
        for c in claims
    ]
    return "\n".join(["| | they say | verdict | rather | source |", "|---|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _details(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"

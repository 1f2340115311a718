"""The page of all verdicts: what each sentence of the bank says, what came out, in which run, and the source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autograde.authoring.bank import VERDICTS, Bank
from autograde.authoring.cards import table_cell
from labkit.experiment import NoEvidence, evidence
from website.chapters import plain
from website.runs import Run

_SIGN = re.compile(r"^Claim ([A-Z]\d\d\.\d+): (\w+)\. ?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """What a chapter's run said of a claim: the verdict that it computed, and why."""

    chapter: str
    verdict: str
    because: str


def found(runs: Mapping[str, Run]) -> dict[str, Found]:
    """What the runs of the chapters (by path) say, by claim. Of several runs of a claim the last one counts."""
    said = {}
    for path, run in runs.items():
        for outputs in run.outputs.values():
            for text in filter(None, map(_text, outputs)):
                if sign := _SIGN.match(text):
                    said[sign[1]] = Found(path, sign[2], " ".join(sign[3].split()))
    return said


def page(bank: Bank, said: Mapping[str, Found], titles: Mapping[str, str], anchors: Iterable[str]) -> str:
    """The page as markdown. `titles`: the chapters' by path; `anchors`: the claims whose place in a chapter has a name.

    A verdict is the one that a run computed: the chapter's, else the kept experiment's. Where none did, the verdict is
    the bank's own, rests on its source, and is said to.
    """
    anchors, counts, parts = set(anchors), Counter(), []
    tested = sum(bool(claim.get("tested_in")) for claim in bank.claims.values())
    for entry in bank.entries:
        rows = []
        for claim in entry.get("claims", []):
            word, how = _verdict(claim, said.get(claim["id"]), titles, claim["id"] in anchors)
            counts[word] += 1
            says = f"**{claim['id']}** {table_cell(claim['says']['en'])}<br>{_chinese(claim['says']['zh'])}"
            rows.append(f"| {says} | {_badge(word)} | {how} | {table_cell(claim['source'])} |")
        title = f"(verdicts-{entry['id']})=\n## {entry['id']}: {entry['en']}\n\n{_chinese(entry['zh'])}"
        card = f"[The whole answer](#card-{entry['id']})"
        parts.append(
            "\n".join([f"{title}\n\n{card}\n", "| claim | verdict | what a run showed | source |", _LINE, *rows])
        )
    opening = _OPENING.format(total=counts.total(), tested=tested, counts=_counted(counts))
    return "\n\n".join([opening, *parts]) + "\n"


_LINE = "|---|---|---|---|"
_OPENING = """# All verdicts

The question bank's answers are taken apart into {total} sentences, and {tested} of them are put to a test: {counts}.

What you read here comes from runs: the chapter's own, whose outputs this site shows, or an experiment that took longer,
whose seeds are all kept in `experiments/results/`. Where a sentence is no matter of measuring, the verdict rests on the
source in the last column, and the page says why no run could settle it.

The words: **correct**; **imprecise**, where something is missing or holds under a condition; **wrong**; **outdated**,
once right; **unverifiable**, where nobody can test it as it stands."""


def _counted(counts: Counter) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])


def _verdict(claim: dict[str, Any], run: Found | None, titles: Mapping[str, str], anchored: bool) -> tuple[str, str]:
    """The word, and from where it comes."""
    try:
        kept = evidence(claim["id"])
    except NoEvidence:
        kept = None
    parts = []
    if run:
        parts.append(plain(run.because))
    path = run.chapter if run else claim.get("tested_in", "")
    if path in titles:
        where = f"#claim-{claim['id']}" if anchored else f"/{path}"
        parts.append(f"[{titles[path]}]({where}).")
    if kept:
        seeds = len({each["seed"] for each in kept.runs})
        made = f"{len(kept.arms)} arms, {seeds} seeds, {kept.made.get('date', '')}, {kept.made.get('processor', '')}"
        parts.append(f"Experiment {claim['id']} ({made}): `python course.py experiment {claim['id']}`.")
    if not run and not kept:
        why = claim.get("no_run", {}).get("en", "Rests on the source.")
        parts.insert(0, "Not run for this site." if claim.get("tested_in") else table_cell(why))
    return (run.verdict if run else kept.verdict if kept else claim["verdict"]), " ".join(parts)


def _badge(word: str) -> str:
    return f'<span class="course-verdict course-{word}">{word}</span><br><span lang="zh">{VERDICTS[word]}</span>'


def _chinese(text: str) -> str:
    return f'<span lang="zh">{table_cell(text)}</span>'


def _text(output: dict) -> str:
    return output.get("data", {}).get("text/plain", "") or output.get("text", "")

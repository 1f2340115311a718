"""What of README.md is made: its table of chapters, with the verdicts that each computes, and its one picture.

`autograde readme` writes both, and the badges. What a chapter is about stays in the table's second column, which is
written by hand; all else comes from the chapters and the question bank.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from autograde.authoring import bank
from autograde.authoring.chapter import all_chapters
from autograde.files import replace
from autograde.repository import ROOT, write_badges

__all__ = ["PICTURE", "Settled", "draw", "settled", "tables", "write"]

PICTURE = "docs/verdicts.png"
_CALL = re.compile(r'verdict\(\s*"([A-Z]\d\d\.\d+)"')
_ROW = re.compile(
    r"^\| \[(?P<title>[^\]]+)\]\(notebooks/(?P<path>[\w/]+)\.ipynb\) \| (?P<about>[^|]+) \|[^|\n]*\|$", re.M
)
_TELLING = ("wrong", "outdated", "imprecise", "correct", "unverifiable")  # of several, the claim that surprises most
_FIT = range(30, 93)  # characters of a claim that the table can show
_COLUMN = 24  # squares from one section's first to the next section's
_LOOKS = {  # color and sign: labkit's colors, and a sign for who can't tell them apart
    "correct": ("#009E73", "✓"),
    "imprecise": ("#E69F00", "~"),
    "wrong": ("#D55E00", "✗"),
    "outdated": ("#CC79A7", "†"),
    "unverifiable": ("#8a8a8a", "?"),
}


@dataclass(frozen=True)
class Settled:
    """A chapter and the claims whose verdicts it computes, as entries of the bank, in the chapter's order."""

    path: str
    title: str
    claims: tuple[dict, ...]

    @property
    def shown(self) -> dict:
        """The claim that stands for all in the table."""
        fit = [claim for claim in self.claims if len(claim["says"]["en"]) in _FIT] or list(self.claims)
        return min(fit, key=lambda claim: _TELLING.index(claim["verdict"]))


def settled(root: Path = ROOT) -> list[Settled]:
    """Every chapter of a section, in order."""
    known = bank.load(root).claims
    chapters = [chapter for chapter in all_chapters(root) if "/" in chapter.path]
    names = [dict.fromkeys(name for cell in c.cells for name in _CALL.findall(cell.source)) for c in chapters]
    return [
        Settled(chapter.path, chapter.title.split(":")[0], tuple(known[name] for name in of if name in known))
        for chapter, of in zip(chapters, names, strict=True)
    ]


def tables(text: str, chapters: list[Settled]) -> str:
    """README's text with its rows, its count of claims and the picture's text as the chapters have them.

    ValueError where a chapter has no row, or a row no chapter.
    """
    by_path = {chapter.path: chapter for chapter in chapters}
    rows = [found["path"] for found in _ROW.finditer(text)]
    if rows != list(by_path):
        row = "`| [Title](notebooks/SECTION/CHAPTER.ipynb) | what it is about | |`"
        odd = next((p for p in [*by_path, *rows] if rows.count(p) != 1 or p not in by_path), "the order of chapters")
        raise ValueError(f"README.md needs one row for each chapter, in their order: {row}. See {odd}.")
    text = re.sub(r"Say of \d+ sentences", f"Say of {sum(len(each.claims) for each in chapters)} sentences", text)
    text = re.sub(rf"!\[[^\]]*\]\({PICTURE}\)", lambda _: f"![{alt(chapters)}]({PICTURE})", text)
    return _ROW.sub(lambda found: _row(by_path[found["path"]], found["about"]), text)


def _row(chapter: Settled, about: str) -> str:
    told = ""
    if chapter.claims:
        shown, more = chapter.shown, len(chapter.claims) - 1
        says = shown["says"]["en"].strip(" .()").replace("|", "/")
        told = f" “{says[:1].upper()}{says[1:]}”: **{shown['verdict']}**{f', and {more} more' if more else ''}"
    return f"| [{chapter.title}](notebooks/{chapter.path}.ipynb) | {about} |{told} |"


def alt(chapters: list[Settled]) -> str:
    """What the picture shows, for those who don't see it; README has it as the picture's text."""
    count = Counter(claim["verdict"] for chapter in chapters for claim in chapter.claims)
    told = ", ".join(f"{count[word]} {word}" for word in _LOOKS)
    return f"Every claim that a chapter tests, one square each, by chapter: {told}."


def draw(chapters: list[Settled]) -> bytes:
    """The picture as PNG: a row of squares for each chapter, a column for each section."""
    import matplotlib.pyplot as plt

    from labkit.figures import figure

    sections = {chapter.path.split("/")[0]: [] for chapter in chapters}
    for chapter in chapters:
        sections[chapter.path.split("/")[0]].append(chapter)
    deep = max(map(len, sections.values()))
    fig, ax = figure(width=10.5, height=1.2 + 0.2 * deep)
    for column, (section, of) in enumerate(sections.items()):
        left = _COLUMN * column
        ax.text(left, -1.4, section[3:].replace("_", " ").capitalize(), fontsize=11, weight="bold")
        for row, chapter in enumerate(of):
            ax.text(left - 0.8, row, chapter.title, ha="right", va="center", fontsize=9)
            for place, claim in enumerate(chapter.claims):
                color, sign = _LOOKS[claim["verdict"]]
                ax.add_patch(plt.Rectangle((left + place - 0.44, row - 0.44), 0.88, 0.88, color=color, linewidth=0))
                ax.text(left + place, row, sign, ha="center", va="center", fontsize=9, color="white", weight="bold")
    ax.set(xlim=(-14, _COLUMN * len(sections) - 13.5), ylim=(deep + 1.6, -2.2))
    ax.axis("off")
    count = Counter(claim["verdict"] for chapter in chapters for claim in chapter.claims)
    for place, (word, (color, sign)) in enumerate(_LOOKS.items()):
        left = 9.5 * place - 1
        ax.add_patch(plt.Rectangle((left - 0.44, deep + 0.56), 0.88, 0.88, color=color, linewidth=0))
        ax.text(left, deep + 1, sign, ha="center", va="center", fontsize=9, color="white", weight="bold")
        ax.text(left + 0.9, deep + 1, f"{word} ({count[word]})", va="center", fontsize=9)
    picture = io.BytesIO()
    fig.savefig(picture, format="png", dpi=144, metadata={"Software": None})
    plt.close(fig)
    return picture.getvalue()


def write(root: Path = ROOT) -> list[str]:
    """Bring README.md and its picture up to date. Returns the files that changed."""
    chapters = settled(root)
    readme, picture = root / "README.md", root / PICTURE
    before = readme.read_text(encoding="utf-8")
    after = tables(before, chapters)
    drawn = draw(chapters)
    changed = []
    if not picture.is_file() or picture.read_bytes() != drawn:
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(drawn)
        changed.append(PICTURE)
    if after != before:
        replace(readme, after, readme.stat().st_mode)
    if write_badges(root) or after != before:
        changed.append("README.md")
    return changed

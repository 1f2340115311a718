"""Find sentences that state a finding and would stand there just as well had the run come out otherwise.

A title, an alt text, or a sentence under a claim that compares or counts has to come from the run: an f-string, a
verdict. What holds whatever comes out (a theorem, a definition) says so in `solutions/fixed.yaml`, with the reason.
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import yaml

from autograde.authoring.chapter import Cell, Chapter
from labkit.verdict import VERDICTS

_TOLD = frozenset({"alt", "title", "suptitle"})
_COMPARES = re.compile(
    r"""\b(
        more|less|fewer|better|worse|higher|lower|larger|smaller|greater|faster|slower|longer|shorter|wider|narrower
        |sooner|later|earlier|easier|harder|cheaper|stronger|weaker|most|least|best|worst|hardly|nearly|barely|twice
        |half|double[sd]?|halve[sd]?|times|rises?|falls?|grows?|shrinks?|wins?|loses?|beats?|fails?|survives?|collapses?
    )\b|\d""",
    re.VERBOSE | re.IGNORECASE,
)
# Numbers that belong to a source, and what others say, in quotation marks: no findings of the course.
_SOURCE = re.compile(
    r"""arXiv:\d+\.\d+(?:v\d+)?|\b(?:19|20)\d\d\b|\]\([^)]*\)|"[^"]*"
    |\b(?:sections?|tables?|figures?|fig\.|equations?|eq\.|appendix|chapters?|exercises?|version)
    \ [A-Z]?\d+(?:\.\d+)*""",
    re.VERBOSE | re.IGNORECASE,
)
_RULE = re.compile(r"\*\*Before the run:\*\*.*?(?:\n\s*\n|\Z)", re.DOTALL)  # a rule is no finding
_SPOKEN = re.compile(r"\*(" + "|".join(VERDICTS) + r")\*", re.IGNORECASE)
_SENTENCE = re.compile(r"[^\s].*?[.!?](?<!\bal\.)(?=[\s)\"*]|$)")


def findings(chapter: Chapter) -> list[tuple[Cell, str]]:
    """Every fixed finding of a chapter with its cell: titles and alt texts of figures, sentences under claims."""
    found, under = [], False
    for cell in chapter.cells:
        if cell.kind in ("demo", "claim", "payoff"):
            found += [(cell, text) for text in _texts(cell.source) if _COMPARES.search(text)]
            under = cell.kind == "claim"
        elif cell.kind == "markdown":
            body = _RULE.sub("", f"\n{cell.source}".split("\n#")[0]) if under else ""  # another heading, another matter
            found += [(cell, text) for text in _sentences(body) if _COMPARES.search(_SOURCE.sub("…", text))]
            under = False
        else:
            under = False
    return found


def unruled(chapter: Chapter) -> list[str]:
    """The claims whose verdict is not computed, or whose rule the text above doesn't give, one line each.

    A rule names each verdict that the cell can choose, as in "*correct* if …, else *wrong*", between the claim or
    exercise before and the run. Claims that follow each other without a text between share the one above them.
    """
    found, above, ended = [], "", False
    for cell in chapter.cells:
        if cell.kind == "markdown":
            above, ended = "" if ended else above, False
            above += cell.source
        elif cell.kind == "claim":
            said = {word.lower() for word in _SPOKEN.findall(above)}
            missing = _words(cell.source) - said
            if not _computes(cell.source):
                found.append(f"{chapter.at(cell)}: it calls no verdict()")
            elif missing or not said:
                found.append(f"{chapter.at(cell)}: no rule for {', '.join(sorted(missing)) or 'its verdict'}")
        ended = ended or cell.kind not in ("markdown", "demo", "payoff")  # the next text is about something else
    return found


def _words(source: str) -> set[str]:
    return {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)} & set(VERDICTS)


def _computes(source: str) -> bool:
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id == "verdict" for call in calls)


def reasons(root: pathlib.Path) -> dict[str, str]:
    """What may stand fixed, and why: by the text as the source has it, white space aside."""
    path = root / "solutions" / "fixed.yaml"
    known = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {_line(text): reason for text, reason in (known or {}).items()}


def unbound(chapter: Chapter, known: dict[str, str]) -> list[str]:
    """The fixed findings without a reason, one line each."""
    return [f"{chapter.at(cell)}: {_line(text)}" for cell, text in findings(chapter) if _line(text) not in known]


def _texts(source: str) -> Iterator[str]:
    """The titles and alt texts in a cell that are plain texts."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        told = [keyword.value for keyword in node.keywords if keyword.arg in _TOLD]
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("set_title", "suptitle"):
            told += node.args[:1]
        if isinstance(node.func, ast.Name) and node.func.id == "show":
            told += node.args[1:3]  # show(fig, alt, title)
        yield from (each.value for each in told if isinstance(each, ast.Constant) and isinstance(each.value, str))


def _sentences(markdown: str) -> Iterator[str]:
    yield from (sentence.strip() for sentence in _SENTENCE.findall(" ".join(markdown.split())))


def _line(text: str) -> str:
    return " ".join(str(text).split())

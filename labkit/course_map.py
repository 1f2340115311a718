"""The map of the course: every chapter with what it takes, what is solved of it, and where to go next.

`show_map()` shows it in a notebook, `python course.py progress` in a terminal. It needs no torch.
"""

from __future__ import annotations

import argparse
import html
import itertools
import os
import pathlib
import sys
import textwrap

from labkit import progress
from labkit.chapters import START, Chapter, Standing, chapters, course, standings, suggestion
from labkit.display import show_html

_TITLE, _BAR = 34, 8  # characters
_BEFORE = 2 + 5 + _TITLE + 2


def show_map() -> None:
    """Show the map of the course: every chapter with what it takes, what is solved, and where to go next."""
    here = standings()
    text = f"{as_text(here)}\n{advice(here)}"
    if not show_html(as_html(here), text):
        print(text)


def advice(here: list[Standing], link=lambda chapter: f"{chapter.number} {chapter.title}") -> str:
    """One or two sentences on where to go next."""
    step = suggestion(here)
    if step is None:
        return f"All {len(here)} chapters are solved."
    if is_new(here):
        return f"Nothing is solved yet. Begin with the exercise in Start here, or at once with {link(step.chapter)}."
    what = "Go on with" if step.begun else "Next is"
    return f"{what} {link(step.chapter)}: {step.open[0]} is its first open exercise."


def is_new(here: list[Standing]) -> bool:
    """Whether nothing was tried yet, not even the exercise of the start page."""
    warming_up = next(chapter.exercises for chapter in chapters() if chapter.path == START)
    return not any(standing.begun for standing in here) and not any(map(progress.best, warming_up))


def as_text(here: list[Standing], exercises: bool = False) -> str:
    """The map for a terminal, in lines of up to 100 characters; with `exercises`, a line for each of these, too."""
    lines = [f"{'':{_BEFORE}}minutes  {'':{_BAR + 2}}  points  solve first"]
    for section, group in itertools.groupby(here, lambda standing: standing.chapter.section):
        lines += ["", section]
        for standing in group:
            lines.append(_line(standing))
            lines += _exercise_lines(standing) if exercises else []
    return "\n".join([*lines, "", _total(here)])


def _line(standing: Standing) -> str:
    chapter = standing.chapter
    title = chapter.title if len(chapter.title) <= _TITLE else chapter.title[: _TITLE - 1] + "…"
    points = f"{_number(standing.earned)}/{_number(standing.points)}"
    filled = int(_BAR * standing.earned / standing.points)
    needs = " ".join(each.number for each in chapters() if each.path in chapter.needs) or "-"
    told = f"  {len(standing.revealed)} revealed" if standing.revealed else ""
    row = f"{'x' if standing.solved else ' '} {chapter.number:<5}{title:<{_TITLE}}  {chapter.minutes:>7}"
    return f"{row}  [{'#' * filled:.<{_BAR}}] {points:>7}  {needs}{told}"


def _exercise_lines(standing: Standing) -> list[str]:
    return [
        f"{'x' if name not in standing.open else ' ':>8} {name}{'  revealed' * (name in standing.revealed)}"
        for name in standing.chapter.exercises
    ]


def _total(here: list[Standing]) -> str:
    earned, points = sum(each.earned for each in here), sum(each.points for each in here)
    solved = sum(each.solved for each in here)
    return f"{solved} of {len(here)} chapters solved, {_number(earned)} of {_number(points)} points."


def _number(value: float) -> str:
    return f"{int(value * 10 + 1e-6) / 10:g}"  # rounded down: what is not whole must not look so


_LEFT = "text-align:left;vertical-align:top;padding:.25em .8em .25em 0"


def as_html(here: list[Standing]) -> str:
    """The map for a notebook: a table in the colors of the page, whatever these are."""
    step = suggestion(here)
    head = "".join(
        f'<th scope="col" style="{_LEFT}">{name}</th>'
        for name in ("Chapter", "Minutes", "Solve first", "Interview questions", "Points")
    )
    body = ""
    for section, group in itertools.groupby(here, lambda standing: standing.chapter.section):
        body += f'<tr><th scope="rowgroup" colspan="5" style="{_LEFT}">{html.escape(section)}</th></tr>'
        body += "".join(_row(standing, standing is step) for standing in group)
    told = advice(here, lambda chapter: _link(chapter, f"{chapter.number} {chapter.title}"))
    return (
        f'<p><strong>{told}</strong><br>{_total(here)}</p><div style="overflow-x:auto"><table style="font-size:100%">'
        '<caption style="text-align:left">The chapters of the course</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(standing: Standing, is_next: bool) -> str:
    chapter = standing.chapter
    mark = "<strong>Next: </strong>" if is_next else ""
    cells = [
        f"{chapter.minutes}",
        ", ".join(_link(each, each.number) for each in chapters() if each.path in chapter.needs) or "nothing",
        _questions(chapter),
        _solved(standing),
    ]
    first = f"{mark}{_link(chapter, f'{chapter.number} {chapter.title}')}"
    return (
        f'<tr><th scope="row" style="{_LEFT};font-weight:normal">{first}</th>'
        + "".join(f'<td style="{_LEFT}">{cell}</td>' for cell in cells)
        + "</tr>"
    )


def _solved(standing: Standing) -> str:
    share = 100 * standing.earned / standing.points
    bar = (
        '<span aria-hidden="true" style="display:inline-block;width:4em;height:.6em;border:1px solid currentColor">'
        f'<span style="display:block;width:{share:.0f}%;height:100%;background:currentColor"></span></span>'
    )
    points = f"{_number(standing.earned)} of {_number(standing.points)}"
    told = f"<br>{len(standing.revealed)} revealed" if standing.revealed else ""
    return f'<span style="white-space:nowrap">{bar} {points}{" ✓ solved" * standing.solved}</span>{told}'


def _questions(chapter: Chapter) -> str:
    texts = "<br>".join(html.escape(course()["questions"][question]) for question in chapter.questions)
    return f"<details><summary>{', '.join(chapter.questions)}</summary>{texts}</details>"


def _link(chapter: Chapter, text: str) -> str:
    place = _address(chapter)
    return f'<a href="{html.escape(place)}">{html.escape(text)}</a>' if place else html.escape(text)


def _address(chapter: Chapter) -> str:
    """Where a chapter is, seen from the notebook that shows the map; on Colab, which has no folder, on Colab again."""
    if "google.colab" in sys.modules:
        repository = course()["repository"]
        published = f"https://colab.research.google.com/github/{repository}/blob/{course()['tag']}/notebooks/"
        return "" if repository.startswith("OWNER/") else f"{published}{chapter.path}.ipynb"
    sections = {each.path.split("/")[0] for each in chapters()}
    here = pathlib.PurePath(os.environ.get("JPY_SESSION_NAME", "")).parent.name
    return f"{'../' if here in sections else ''}{chapter.path}.ipynb"


def main(arguments: list[str] | None = None) -> int:
    """`python course.py progress`. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="course.py progress", description="What is solved, and where to go next.")
    parser.add_argument("part", nargs="?", default="", help="only chapters whose name has this in it, with exercises")
    parser.add_argument("--section", default="", help="only one section, such as 01 or applications")
    options = parser.parse_args(arguments)
    everything = standings()
    here = [
        standing
        for standing in everything
        if options.part.lower() in f"{standing.chapter.path} {standing.chapter.title}".lower()
        and options.section.lower() in standing.chapter.path.split("/")[0]
    ]
    if not here:
        print("No chapter has that in its name. `python course.py progress` lists all of them.")
        return 1
    print(as_text(here, exercises=bool(options.part)))
    print(textwrap.fill(advice(everything), 96))
    if is_new(everything):
        print(f"`python course.py lab` opens {START}.ipynb; README.md has links to Binder and Colab.")
    return 0


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads it, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)

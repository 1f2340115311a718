"""Long cells fold away the code that only draws."""

import pytest
from real_course import chapters

from autograde.authoring.folding import folded

COMPUTES = "\n".join(f"value_{i} = {i}" for i in range(20))
DRAWS = "fig, ax = figure()\n" + "\n".join(f"ax.plot({i})" for i in range(10)) + "\nshow(fig, alt='a', title='b')"


def test_a_short_cell_stays_whole():
    assert folded(DRAWS) == [(DRAWS, False)]


def test_the_figure_of_a_long_cell_is_collapsed():
    assert folded(f"{COMPUTES}\n\n\n# why\n{DRAWS}") == [(COMPUTES, False), (f"# why\n{DRAWS}", True)]


def test_what_stands_between_the_lines_of_a_figure_stays_with_it():
    assert [hide for _, hide in folded(f"{COMPUTES}\n{DRAWS}\nmore = 1\nax.plot(more)\nlast = 2")] == [
        False,
        True,
        False,
    ]


def test_a_function_that_draws_is_collapsed_and_its_call_is_not():
    body = "\n".join(f"    ax.plot({i})" for i in range(30))
    (one, hidden), (other, shown) = folded(f"def draw(ax):\n{body}\n\n\ndraw(1)")
    assert hidden and not shown and one.startswith("def draw") and other == "draw(1)"


def test_a_cell_with_a_magic_stays_whole():
    source = f"%%time\n{COMPUTES}\n{DRAWS}"
    assert folded(source) == [(source, False)]


@pytest.mark.parametrize("chapter", chapters(), ids=lambda chapter: chapter.path)
def test_folding_loses_no_line(chapter):
    for cell in chapter.cells:
        if cell.kind in ("demo", "claim", "payoff"):
            parts = [line for text, _ in folded(cell.source) for line in text.splitlines() if line.strip()]
            assert parts == [line for line in cell.source.splitlines() if line.strip()]

import base64
import io
import re

import matplotlib
import nbformat
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from labkit import COLORS, figure, figures, show  # noqa: E402
from labkit.display import minus  # noqa: E402

CELLS = [
    "from labkit import figure, show, knobs\n"
    "fig, ax = figure(); ax.plot([1, 2, 3]); show(fig, alt='A \"rising\" line <1>', title='Up')",
    "def draw(n):\n    print('drawn', n)\nknobs(draw, n=(1, 5))",
    "from labkit import launch\nimport torch.distributed as dist\n"
    "def cell():\n    print('hello')\n    return dist.get_rank()\nlaunch(cell, ranks=2)",
    "def bad():\n    raise ValueError('broken')\nlaunch(bad, ranks=2)",
]


@pytest.fixture(scope="module")
def ran():
    """The outputs of CELLS, run by a real kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_figure_is_one_image_with_its_text(ran):
    (output,) = ran[0]
    page = output["data"]["text/html"]
    assert 'alt="A &quot;rising&quot; line &lt;1&gt;"' in page and "max-width:100%" in page
    assert output["data"]["text/plain"] == 'Figure: A "rising" line <1>' and "image/png" not in output["data"]
    picture = base64.b64decode(re.search(r"base64,([^\"]+)\"", page).group(1))
    assert Image.open(io.BytesIO(picture)).size[0] > 900 and len(picture) < 100_000


def test_knobs_leave_no_trace_where_nobody_can_turn_them(ran):
    assert ran[1] == []


def test_launch_in_a_notebook(ran):
    texts = [output["text"] for output in ran[2] if output["output_type"] == "stream"]
    assert sorted("".join(texts).splitlines()) == ["[rank 0] hello", "[rank 1] hello"]
    assert ran[2][-1]["data"]["text/plain"] == "[0, 1]"


def test_a_failed_launch_shows_only_its_message(ran):
    (output,) = ran[3]
    assert output["ename"] == "RankError"
    shown = "\n".join(output["traceback"])
    assert shown.startswith("RankError: Ranks 0 and 1 raised ValueError: broken\n  line 2, in bad:  raise ValueError")
    assert "launch.py" not in shown


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_a_text_is_demanded(alt):
    fig, _ = figure()
    with pytest.raises(ValueError, match="alt"):
        show(fig, alt=alt)
    plt.close(fig)


def test_a_script_shows_nothing_and_keeps_nothing_open(capsys):
    fig, axes = figure(2, 2)
    assert axes.shape == (2, 2)
    show(fig, alt="Four empty charts.")
    assert not plt.get_fignums() and capsys.readouterr().out == ""


def test_the_style():
    fig, ax = figure(width=4, height=3)
    assert tuple(fig.get_size_inches()) == (4, 3)
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
    assert [ax.plot([0, 1])[0].get_color() for _ in COLORS] == COLORS
    plt.close(fig)


def test_pictures_stay_small_and_the_same():
    def noise():
        fig, ax = figure()
        ax.imshow(torch.rand(60, 60, generator=torch.Generator().manual_seed(0)).numpy())
        picture = figures._png(fig)
        plt.close(fig)
        return picture

    assert noise() == noise() and len(noise()) < 100_000


class _Kernel:
    kernel = object()
    user_ns = {}


def test_knobs_draw_when_a_slider_moves(monkeypatch):
    widgets = pytest.importorskip("ipywidgets")
    boxes, drawn = [], []
    monkeypatch.setenv("LABKIT_KNOBS", "1")
    monkeypatch.setattr(figures, "kernel_shell", lambda: _Kernel)
    monkeypatch.setattr(figures, "_show_widget", boxes.append)
    figures.knobs(lambda **values: drawn.append(values), head_count=(1, 8), base=widgets.FloatSlider(2.0, max=9))
    heads, base, _ = boxes[0].children
    assert heads.description == "head count" and drawn == []
    heads.value = 7
    assert drawn == [{"head_count": 7, "base": 2.0}]
    with pytest.raises(ValueError, match="slider"):
        figures.knobs(print, x=object())


@pytest.mark.parametrize(
    ("text", "typeset"),
    [
        ("gains -0.01 at 0.1 (-0.02 to +0.03)", "gains −0.01 at 0.1 (−0.02 to +0.03)"),
        ("int8 -0.00, top-10 of GPT-2, warm-up -5", "int8 0.00, top-10 of GPT-2, warm-up −5"),
        ("0.1-0.2, -0, -0.005", "0.1-0.2, 0, −0.005"),
    ],
)
def test_negative_numbers_have_a_true_minus_sign(text, typeset):
    assert minus(text) == typeset


@pytest.mark.parametrize("words", [3, 12, 16, 40])
def test_a_title_stays_inside_its_figure(words, monkeypatch):
    """One was cut at the right edge: its length came from the run."""
    fig, ax = figure(width=8, height=3)
    ax.plot([1, 2])
    monkeypatch.setattr(plt, "close", lambda fig: None)
    show(fig, alt="a line", title=" ".join(["eight"] * words))
    fig.canvas.draw()
    box = fig._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= fig.bbox.width and fig._suptitle.get_fontsize() >= 10
    assert fig._suptitle.get_text().split() == ["eight"] * words
    top = ax.get_position().y1 * fig.bbox.height
    assert top <= box.y0


@pytest.mark.parametrize(
    "lines",
    [
        ["Below the page as it is, of 4: one sentence repeated 4,", "the model's likeliest 4, shuffled words 0"],
        ["one two six ten one two", "six ten one two six"],
    ],
)
def test_a_long_title_ends_its_lines_where_a_part_ends_or_in_the_middle(lines):
    text = " ".join(lines)
    assert figures._lines(text, share=1.03) == lines


@pytest.mark.parametrize(("words", "drawn"), [(3, 1), (12, 2), (16, 2), (40, 2)])
@pytest.mark.parametrize("loc", ["left", "center"])
def test_a_plots_own_title_stays_inside_its_figure(words, drawn, loc, monkeypatch):
    """Whole sentences stood on plots, too; a figure whose titles fit is drawn once."""
    pictures, png = [], figures._png
    monkeypatch.setattr(figures, "_png", lambda fig: pictures.append(png(fig)) or pictures[-1])
    monkeypatch.setattr(figures, "kernel_shell", lambda: "a notebook's")
    monkeypatch.setattr(figures, "show_html", lambda *given: None)
    fig, ax = figure(width=6, height=3)
    ax.plot([1, 2])
    ax.set_title(" ".join(["eight"] * words), loc=loc)
    show(fig, alt="a line")
    ink = [(plt.imread(io.BytesIO(each))[:60, :, :3].mean(-1) < 0.8).any(0).nonzero()[0] for each in pictures]
    assert len(pictures) == drawn and ax.get_title(loc=loc).split() == ["eight"] * words
    assert ink[-1].max() < 0.998 * 6 * figures.DPI


@pytest.mark.parametrize("letters", [95, 101, 106, 115, 120])
def test_no_letter_of_a_title_is_cut_off_in_the_picture(letters, monkeypatch):
    """Measured at another resolution than the picture's, a title was three letters too long for it."""
    said = "Below the person's own page, of 4: one sentence repeated 4, the model's likeliest 4, shuffled words 0, so"
    fig, ax = figure(width=8.6, height=3.6)
    ax.plot([1, 2])
    monkeypatch.setattr(plt, "close", lambda fig: None)
    show(fig, alt="a line", title=(said + " of these")[:letters])
    picture = plt.imread(io.BytesIO(figures._png(fig)))[..., :3].mean(-1)
    ink = (picture[: picture.shape[0] // 9] < 0.8).any(0).nonzero()[0]
    assert ink.max() < 0.998 * picture.shape[1]

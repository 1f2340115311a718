"""Figures in one style: readable, safe for color-blind readers, and with a text for readers who can't see them."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import os
import textwrap
from collections.abc import Callable
from typing import Any

from labkit.display import kernel_shell, minus, show_html

# Okabe and Ito, "Color Universal Design" (2008), in the order that stays apart best on white; their yellow is left
# out, because lines and text in it can't be read on white.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
SEQUENTIAL = "cividis"  # made for color-vision deficiency: Nuñez, Anderton and Renslow, PLOS ONE 13(7), 2018
DIVERGING = "PuOr"  # orange against purple, white in the middle

DPI = 144
_LARGE = 90_000  # bytes of PNG above which the picture is stored with 256 colors

_STYLE = {
    "figure.dpi": 96,
    "figure.facecolor": "white",
    "figure.titlesize": 13,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#e4e4e4",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
}


def figure(rows: int = 1, cols: int = 1, width: float | None = None, height: float | None = None, **subplots_kw):
    """Make a figure in the house style: `(fig, ax)`, or `(fig, axes)` as `plt.subplots` gives them.

    `width` and `height` are inches of the whole figure; left out, they grow with `rows` and `cols`. Everything else
    goes to `plt.subplots`. The style is set when the first figure is made, not when labkit is imported.
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update({**_STYLE, "axes.prop_cycle": cycler(color=COLORS)})
    size = (width or min(4.0 + 3.0 * cols, 10.5), height or 0.6 + 2.8 * rows)
    return plt.subplots(rows, cols, figsize=size, **subplots_kw)


def show(fig, alt: str, title: str | None = None) -> None:
    """Show a figure once, with `alt` as its alternative text, and close it.

    In a notebook (JupyterLab, Colab, VS Code, nbconvert, papermill) the output is one HTML image that shrinks with the
    page; in a script or a terminal nothing is shown. `alt` says in a sentence or two what the figure shows, for
    readers who can't see it. Raises ValueError where it is empty.
    """
    import matplotlib.pyplot as plt

    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("show() needs alt: a sentence that tells what the figure shows to someone who can't see it.")
    try:
        if title:
            _fit(fig.suptitle(minus(title), x=0.01, horizontalalignment="left"), fig)
        if kernel_shell() is not None:
            alt = minus(" ".join(alt.split()))
            image = _image(fig, alt)
            if cut := _cut_titles(fig):
                for each in cut:
                    _fit(each, fig)
                image = _image(fig, alt)
            show_html(image, f"Figure: {alt}")
    finally:
        plt.close(fig)


def _fit(title, fig) -> None:
    """A title holds what a run gave, so nobody knew its length: smaller letters, then a second line, keep it whole."""
    with _as_saved(fig) as renderer:

        def over() -> float:
            box = title.get_window_extent(renderer)
            return box.width / (0.995 * fig.bbox.width - box.x0)

        if over() > 1:
            title.set_fontsize(max(title.get_fontsize() / over(), 10.5))
        if (share := over()) > 1:
            title.set_text("\n".join(_lines(title.get_text(), share)))


def _lines(text: str, share: float) -> list[str]:
    """A text that is `share` times as long as a line can be, in as few lines as that takes: they end where a part of
    the sentence does, or else are about equally long."""
    widest = int(len(text) / share)
    wrapped = [textwrap.wrap(text, width, break_on_hyphens=False) for width in range(widest // 2 + 1, widest + 1)]
    fewest = [lines for lines in wrapped if len(lines) == len(wrapped[-1])]
    return next((lines for lines in fewest if all(line[-1] in ",;:." for line in lines[:-1])), fewest[0])


def _cut_titles(fig) -> list:
    """The plots' own titles that run past the right edge of a figure which has been drawn."""
    with _as_saved(fig) as renderer:
        titles = (each for ax in fig.axes for each in (ax.title, ax._left_title, ax._right_title) if each.get_text())
        return [each for each in titles if each.get_window_extent(renderer).x1 > fig.bbox.width]


@contextlib.contextmanager
def _as_saved(fig):
    """Inside, lengths are those of the picture: letters stand on whole pixels, so they depend on the resolution."""
    before, fig.dpi = fig.dpi, DPI
    try:
        yield getattr(fig.canvas, "get_renderer", lambda: None)()  # None: the figure's own
    finally:
        fig.dpi = before


def _image(fig, alt: str) -> str:
    width = round(fig.get_size_inches()[0] * 96)
    return (
        f'<img alt="{html.escape(alt)}" style="width:{width}px;max-width:100%;height:auto" '
        f'src="data:image/png;base64,{base64.b64encode(_png(fig)).decode()}">'
    )


def _png(fig) -> bytes:
    """The figure as PNG. Nothing in it depends on the version or the date, so the same figure gives the same bytes."""
    full = io.BytesIO()
    fig.savefig(full, format="png", dpi=DPI, metadata={"Software": None})
    if full.tell() <= _LARGE:
        return full.getvalue()
    from PIL import Image

    small = io.BytesIO()
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return min(full.getvalue(), small.getvalue(), key=len)


def knobs(draw: Callable[..., Any], **widgets) -> None:
    """Sliders that call `draw(**values)` when they are moved, below a static figure that says the same without them.

    Each keyword is an argument of `draw`: an ipywidgets widget, or its short form: `(low, high)` or `(low, high, step)`
    for a slider, a list for a menu, True or False for a box. `draw` shows a figure or prints. The first picture is the
    static figure's job: nothing is drawn until a slider moves. Where nobody can move one (a script, papermill,
    nbconvert, no ipywidgets), nothing appears. LABKIT_KNOBS=1 or 0 in the environment overrules the guess.
    """
    if not _is_live():
        return
    try:
        import ipywidgets
    except ImportError:
        return
    controls = {name: _control(ipywidgets, name, value) for name, value in widgets.items()}
    output = ipywidgets.Output()

    def redraw(_change) -> None:
        with output:
            from IPython.display import clear_output

            clear_output(wait=True)
            draw(**{name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(redraw, names="value")
    _show_widget(ipywidgets.VBox([*controls.values(), output]))


def _control(ipywidgets, name: str, value):
    control = value if isinstance(value, ipywidgets.Widget) else ipywidgets.interactive.widget_from_abbrev(value)
    if control is None:
        raise ValueError(f"knobs() can't make a slider from {name}={value!r}: give a widget, (low, high) or a list.")
    control.description = control.description or name.replace("_", " ")
    control.style.description_width = "initial"
    if hasattr(control, "continuous_update"):
        control.continuous_update = False  # one drawing a move, not one a pixel
    return control


def _show_widget(box) -> None:
    from IPython.display import display

    model = {"model_id": box.model_id, "version_major": 2, "version_minor": 0}
    # The empty HTML is for pages without a widget manager, which would otherwise print the widget's repr.
    display({"application/vnd.jupyter.widget-view+json": model, "text/html": "", "text/plain": ""}, raw=True)


def _is_live() -> bool:
    """Whether somebody sits at a frontend. A kernel can't ask, but those frontends leave marks in it."""
    shell = kernel_shell()
    if shell is None:
        return False
    if (forced := os.environ.get("LABKIT_KNOBS")) is not None:
        return forced != "0"
    marks = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")  # Jupyter Server (Binder too), VS Code, Colab
    return any(mark in os.environ for mark in marks) or "__vsc_ipynb_file__" in shell.user_ns

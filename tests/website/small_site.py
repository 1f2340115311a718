"""A site of three chapters, made once for all tests: one that was run, one with made-up outputs, one without any."""

from __future__ import annotations

import base64
import functools
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from real_course import sources as solved

from autograde.repository import ROOT
from website import __main__ as site
from website import running, runs, sources

RUN, KEPT, NOT_RUN = "00_start_here", "01_transformer/04_rope", "03_data_parallel/02_all_reduce"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
FIGURE = (
    f'<img alt="One white point." style="width:600px;max-width:100%;height:auto" src="data:image/png;base64,{PNG}">'
)
VERDICT = "Claim T05.3: wrong. It *is* a sum_of [two] things | no `more`, < 3 and $5."


def make(folder: Path) -> int:
    """Write the sources of the site below `folder` and build it; Sphinx's exit code, 0 where it finds no fault."""
    chapters = {path: solved()[path] for path in (RUN, KEPT, NOT_RUN)}
    kept = folder / "runs"
    runs.keep(RUN, _run(chapters[RUN]), kept)
    runs.keep(KEPT, runs.Run(runs.key(chapters[KEPT]), _stand_in(chapters[KEPT])), kept)
    missing = sources.write(folder, chapters, kept)
    assert missing == [f"{NOT_RUN}: not run"]
    return site.make(folder)


def _run(notebook) -> runs.Run:
    """What the notebooks' tests have left of it, else what it gives now."""
    key = runs.key(notebook)
    if found := runs.kept(RUN, key):
        return found
    outputs, failed = running.execute(nbformat.from_dict(notebook))
    assert not failed, failed
    return runs.Run(key, outputs)


def _stand_in(notebook) -> dict:
    """Outputs of every kind that a chapter has, without a run."""
    outputs = {}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        kind = cell.metadata.tags[0]
        outputs[cell.id] = [{"output_type": "stream", "name": "stdout", "text": "\x1b[31mprinted\x1b[0m <b>\n"}]
        if kind == "demo":
            outputs[cell.id].append(_display({"text/html": FIGURE, "text/plain": "Figure"}))
            outputs[cell.id].append(_display({"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}))
            outputs[cell.id].append({"output_type": "stream", "name": "stderr", "text": "a warning\n"})
        if kind == "claim":
            outputs[cell.id].append(_display({"text/html": "<p>said</p>", "text/plain": VERDICT}))
    return outputs


def _display(data: dict) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": data}


@functools.cache
def read(file: Path) -> BeautifulSoup:
    return BeautifulSoup(file.read_text(encoding="utf-8"), "lxml")


@functools.cache
def ids(file: Path) -> set[str]:
    """What a link to a place in the page may name."""
    return {tag["id"] for tag in read(file).find_all(id=True)}


def png() -> bytes:
    return base64.b64decode(PNG)


__all__ = ["KEPT", "NOT_RUN", "ROOT", "RUN", "VERDICT", "ids", "make", "png", "read"]

"""A chapter as a page: the notebook that learners get, with the outputs that the solved one gave."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Container

import nbformat
from nbformat import NotebookNode

from website.runs import Run

WIDGETS = "In the notebook, sliders stand here and draw this figure again for the values that you choose."
_NOTE = """```{{admonition}} {title}
:class: {kind}
{text}
```"""
_RUN = _NOTE.format(
    title="How to read this page",
    kind="tip",
    text="The outputs are those of a solved run. Exercise cells show what you start from: open the chapter in "
    "JupyterLab with `python course.py lab`, or with the rocket above on Binder or Colab, and write them yourself.",
)
_PNG = re.compile(r'<img (?P<before>[^>]*)src="data:image/png;base64,(?P<data>[A-Za-z0-9+/=]+)"(?P<after>[^>]*)>')
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?:\.\./)*(?P<path>[\w/]+)\.ipynb\)")
_HREF = re.compile(
    r'<a (?P<before>[^>]*)href="(?P<up>(\.\./)*)(?P<path>[\w/]+)\.ipynb"(?P<after>[^>]*)>(?P<text>.*?)</a>', re.S
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def page(
    path: str, released: NotebookNode, run: Run | None, claims: Container[str], known: Container[str]
) -> tuple[NotebookNode, dict[str, bytes]]:
    """The page of the chapter at `path`, and its figures as name -> PNG.

    run: what the solved notebook gave; None where it wasn't run, which the page says. claims: the bank's. known: the
    chapters that are on the site; what links to another one becomes plain text.
    """
    made = nbformat.from_dict(released)
    figures: dict[str, bytes] = {}
    up = "../" * path.count("/") + "figures/"
    for cell in made.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            cell.outputs = []
            if run and not run.failed:
                found = _static(run.outputs.get(cell.id, []), up, figures, known)
                cell.outputs = found[:1] if "check" in tags else found  # the second report is the hidden check's
            if re.search(r"\bknobs\(", cell.source):
                cell.outputs.append(_html(f'<p class="course-live">{WIDGETS}</p>'))
            if cell.metadata.get("jupyter", {}).get("source_hidden"):
                tags.append("hide-input")
        else:
            cell.source = _LINK.sub(lambda link: _linked(link, known), _anchored(cell.source, claims))
    _one_title(made.cells)
    made.cells = [c for c in made.cells if "bootstrap" not in c.metadata.get("tags", [])]
    made.cells[1] = nbformat.v4.new_markdown_cell(_told(run) + _after_badges(made.cells[1].source), id="how-to-read")
    return made, figures


def _told(run: Run | None) -> str:
    if run is None:
        text = "This chapter had not been run when the site was built, so its figures and numbers are missing."
        return _NOTE.format(title="Not run", kind="warning", text=text)
    if run.failed:
        text = f"The run of this chapter failed, so its figures and numbers are missing: {plain(run.failed)}"
        return _NOTE.format(title="Not run to the end", kind="warning", text=text)
    return _RUN


def plain(text: str) -> str:
    """What a run printed, as markdown that shows the same."""
    return re.sub(r"([\\`*_{}\[\]<>$|~])", r"\\\1", text)


def _after_badges(source: str) -> str:
    """What stands below the badges: the start page's table of chapters."""
    return "\n\n" + source.partition("\n\n")[2]


def _anchored(source: str, claims: Container[str]) -> str:
    """Claims and cards get names that other pages can link to, and the Chinese its language."""
    found = re.match(r"> \*\*Claim ([A-Z]\d\d\.\d+)\*\*", source)
    if found and found[1] in claims:
        source = f"(claim-{found[1]})=\n{source}"
    return chinese_marked(source)


def _one_title(cells: list[NotebookNode]) -> None:
    """A page has one title: whatever other heading is as large becomes a heading below it."""
    first = True
    for cell in (cell for cell in cells if cell.cell_type == "markdown"):
        lines, fenced = cell.source.split("\n"), False
        for i, line in enumerate(lines):
            fenced ^= line.startswith("```")
            if line.startswith("# ") and not fenced:
                lines[i] = line if first else f"#{line}"
                first = False
        cell.source = "\n".join(lines)


def chinese_marked(card: str) -> str:
    """A card whose fold of Chinese says that it is Chinese, for screen readers and fonts."""
    return card.replace("<details>\n<summary>中文", '<details lang="zh">\n<summary>中文')


def _linked(link: re.Match, known: Container[str]) -> str:
    """A link between chapters, in a page's markdown or (with `before`) in the HTML of an output."""
    path = link["path"]
    if path not in known:
        return link["text"]
    if "before" in link.groupdict():
        return f'<a {link["before"]}href="{link["up"]}{path}.html"{link["after"]}>{link["text"]}</a>'
    return f"[{link['text']}](/{path}.ipynb)"


def _static(outputs: list[dict], up: str, figures: dict[str, bytes], known: Container[str]) -> list[NotebookNode]:
    """The outputs that a page can show: HTML, else text; figures as files of their own, each with a link to it."""
    made = []
    for output in outputs:
        if output["output_type"] == "stream":
            if output["name"] == "stdout":
                made.append(nbformat.v4.new_output("stream", name="stdout", text=_ANSI.sub("", output["text"])))
            continue
        data = output.get("data", {})
        html, text = data.get("text/html"), data.get("text/plain", "")
        if "application/vnd.jupyter.widget-view+json" in data or html == "":
            continue
        if html:
            html = _HREF.sub(lambda link: _linked(link, known), html)
            made.append(_html(_PNG.sub(lambda found: _figure(found, up, figures), html)))
        elif text:
            made.append(nbformat.v4.new_output("display_data", data={"text/plain": _ANSI.sub("", text)}))
    return made


def _figure(found: re.Match, up: str, figures: dict[str, bytes]) -> str:
    picture = base64.b64decode(found["data"])
    name = hashlib.sha256(picture).hexdigest()[:16] + ".png"
    figures[name] = picture
    image = f'<img {found["before"]}loading="lazy" src="{up}{name}"{found["after"]}>'
    return f'<a class="course-figure" href="{up}{name}">{image}</a>'


def _html(text: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", data={"text/html": text})

"""The bank's markdown as HTML, with formulas for Anki or as plain text, and as markdown without formulas."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import cache

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

__all__ = ["anki_html", "page_html", "plain", "without_formulas"]

_SIGNS = {
    "theta": "θ", "alpha": "α", "beta": "β", "sigma": "σ", "pi": "π", "lambda": "λ", "epsilon": "ε", "eta": "η",
    "mu": "μ", "ell": "ℓ", "partial": "∂", "nabla": "∇", "sum": "Σ", "prod": "Π", "infty": "∞", "cdot": "·",
    "times": "×", "pm": "±", "odot": "⊙", "approx": "≈", "propto": "∝", "in": "∈", "ge": "≥", "le": "≤", "to": "→",
    "leftarrow": "←", "succ": "≻", "mid": "|", "Vert": "‖", "lVert": "‖", "rVert": "‖", "|": "‖", "langle": "⟨",
    "rangle": "⟩", "lceil": "⌈", "rceil": "⌉", "top": "ᵀ", "vert": "|", ",": " ", ";": " ", "qquad": "   ",
    "quad": "  ", "big": "", "left": "", "right": "", "_": "_", "%": "%",
}  # fmt: skip
_ACCENTS = {"hat": "\u0302", "bar": "\u0304", "overline": "\u0304", "tilde": "\u0303"}
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)\$", re.DOTALL)


def _bracketed(text: str) -> str:
    return text if re.fullmatch(r"\\?\w+'?|\([^()]*\)|", text) else f"({text})"


_ONE = r"(?:\{([^{}]*)\}| ?(\w))"  # an argument: a group without another one in it, or a letter
_RULES: list[tuple[str, Callable[[re.Match], str]]] = [
    (r"\\(?:text|mathrm|operatorname|mathbf|mathcal)\{([^{}]*)\}", lambda m: m[1]),
    (rf"\\binom{_ONE}{_ONE}", lambda m: f"C({m[1] or m[2]}, {m[3] or m[4]})"),
    (rf"\\frac{_ONE}{_ONE}", lambda m: f"{_bracketed(m[1] or m[2])}/{_bracketed(m[3] or m[4])}"),
    (rf"\\sqrt{_ONE}", lambda m: f"√({m[1]})" if len(m[1] or "") > 1 else f"√{m[1] or m[2]}"),
    (rf"\\({'|'.join(_ACCENTS)}){_ONE}", lambda m: f"{m[2] or m[3]}{_ACCENTS[m[1]]}"),
    (r"([_^])\{([^{}]*)\}", lambda m: m[1] + _bracketed(m[2])),
]


def plain(formula: str) -> str:
    r"""A formula of TeX as a line of text: `\frac{a}{b}` becomes a/b, `\theta_{i,j}` θ_(i,j)."""
    text, before = " ".join(formula.replace(r"\{", "\ue000").replace(r"\}", "\ue001").split()), None
    while text != before:  # from the innermost group outwards
        before = text
        for pattern, put in _RULES:
            text = re.sub(pattern, put, text)
    text = re.sub(r"\\([a-zA-Z]+|.)", lambda m: _SIGNS.get(m[1], m[1]), text)
    text = re.sub(r"\^(?=ᵀ)|(?<=[∂∇]) ", "", text.replace("{", "").replace("}", ""))
    return re.sub(r" {2,}", " ", text).replace("\ue000", "{").replace("\ue001", "}").strip()


def without_formulas(text: str) -> str:
    """Markdown with every formula written out as plain text, so that it can be read in a terminal."""

    def written(found: re.Match) -> str:
        told = re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", plain(found[1] or found[2]))
        return f"\n\n{told}\n\n" if found[1] else told

    return _FORMULA.sub(written, text)


def anki_html(text: str) -> str:
    r"""Markdown as HTML for a field of an Anki note: formulas stand in Anki's `\( \)` and `\[ \]`."""
    return _renderer("anki").render(text).strip()


def page_html(text: str) -> str:
    """Markdown as HTML for a page that works offline: formulas are plain text."""
    return _renderer("page").render(text).strip()


@cache
def _renderer(target: str) -> MarkdownIt:
    def formula(content: str, options: dict) -> str:
        if target == "page":
            return f"<i>{html.escape(plain(content))}</i>"
        begin, end = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
        return begin + html.escape(content) + end

    maker = MarkdownIt("commonmark", {"html": False}).enable("table")
    return maker.use(dollarmath_plugin, renderer=formula, double_inline=True)

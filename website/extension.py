"""What the course adds to Sphinx: a search for English and Chinese, and formulas as MathML.

Both work without a network, and formulas also without JavaScript.
"""

from __future__ import annotations

import html
import re
import zlib
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
_PIECES = re.compile(rf"([{_HAN}]+)|[^\W{_HAN}]+")


class SearchBoth(SearchEnglish):
    """English words by their stems; Chinese, which has no spaces, by every two characters that stand side by side.

    A page is found if it has all pairs of the query: for 位置编码 those are 位置, 置编 and 编码. No dictionary has to
    know the word. A query of one character finds it alone, so single characters are kept, too.
    """

    lang = "en-zh"
    js_splitter_code = """
var splitQuery = (query) => {
  const pieces = query.match(/[HAN]+|(?:(?![HAN])[\\p{Letter}\\p{Number}_])+/gu) || [];
  const pairs = (piece) => [...piece].slice(1).map((_, i) => piece.slice(i, i + 2));
  return pieces.flatMap((piece) => (/^[HAN]{2,}$/.test(piece) ? pairs(piece) : [piece]));
};""".replace("HAN", _HAN)

    def split(self, input: str) -> list[str]:
        words: list[str] = []
        for piece in _PIECES.finditer(input):
            if han := piece[1]:
                words += [*han, *(han[i : i + 2] for i in range(len(han) - 1))]
            else:
                words.append(piece[0])
        return words


def _inline(self, node) -> None:
    self.body.append(_mathml(node.astext(), "inline"))
    raise SkipNode


def _block(self, node) -> None:
    # Wide formulas scroll, and what scrolls has to be reached by the keyboard.
    opening = '<div class="course-formula" tabindex="0" role="group" aria-label="formula">'
    self.body.append(f"{opening}{_mathml(node.astext(), 'block')}</div>\n")
    raise SkipNode


def _mathml(latex: str, display: str) -> str:
    """A formula as MathML; its LaTeX stays with it, for who can't see it and for who copies it."""
    made = convert(latex.strip(), display=display)
    return made.replace("<math ", f'<math alttext="{html.escape(" ".join(latex.split()))}" ', 1)


def setup(app: Sphinx) -> dict:
    app.add_search_language(SearchBoth)
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    mine = zlib.crc32(Path(__file__).read_bytes())  # where this file changes, every page is made anew
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": mine}

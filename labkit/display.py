"""Show something in a notebook as HTML, and elsewhere as text or not at all."""

from __future__ import annotations

import re
import sys


def kernel_shell():
    """The IPython shell of a Jupyter kernel (also Colab's), or None in a script, a terminal or a test."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if getattr(shell, "kernel", None) is not None else None


def show_html(html: str, text: str) -> bool:
    """Show `html` in a notebook, with `text` for readers that have no HTML. False where there is no notebook."""
    if kernel_shell() is None:
        return False
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)
    return True


def minus(text: str) -> str:
    """The text with a true minus sign in front of negative numbers, none in front of zeros; hyphens stay."""
    text = re.sub(r"(?<!\w)-(?=0(\.0+)?(?![\d.]))", "", text)
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)

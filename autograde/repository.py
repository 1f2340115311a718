"""Where the course is published: one slug in pyproject.toml, and every link made from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import quote

from autograde.files import replace

__all__ = [
    "ROOT",
    "badges",
    "binder_url",
    "carriers",
    "colab_url",
    "reveals",
    "set_slug",
    "slug",
    "tag",
    "write_badges",
]

ROOT = Path(__file__).resolve().parents[1]
START = "notebooks/00_start_here.ipynb"
_BEGIN, _END = "<!-- badges: made by `autograde slug` -->", "<!-- end of badges -->"
# GitHub's rules: an owner is up to 39 letters, digits and single hyphens; a name up to 100 of letters, digits, . _ -
_SLUG = re.compile(r"(?P<owner>[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38})/(?P<name>[A-Za-z0-9._-]{1,100})")
_LINE = re.compile(r'(?m)^(repository\s*=\s*)"[^"\n]*"')


def slug(root: Path = ROOT) -> str:
    """OWNER/NAME of the repository, from [tool.course] in pyproject.toml. ValueError where it is missing or wrong."""
    return _valid(str(_course(root).get("repository", "")))


def tag(root: Path = ROOT) -> str:
    """The tag or branch that links and badges point to."""
    return str(_course(root).get("tag", "main"))


def binder_url(notebook: str = START, root: Path = ROOT) -> str:
    """The link that opens `notebook` (a path from the repository's root) on Binder."""
    return f"https://mybinder.org/v2/gh/{slug(root)}/{quote(tag(root), safe='')}?urlpath=lab/tree/{quote(notebook)}"


def colab_url(notebook: str, root: Path = ROOT) -> str:
    """The link that opens `notebook` (a path from the repository's root) on Colab."""
    return f"https://colab.research.google.com/github/{slug(root)}/blob/{quote(tag(root))}/{quote(notebook)}"


def badges(root: Path = ROOT) -> str:
    """README's badges as markdown: Binder for the whole course, Colab for the first chapter of each section."""
    binder = f"[![Open the course on Binder](https://mybinder.org/badge_logo.svg)]({binder_url(root=root)})"
    found = sorted(p.relative_to(root).as_posix() for p in root.glob("notebooks/[0-9]*/*.ipynb"))
    first = {path.split("/")[1]: path for path in reversed(found)}
    colab = [
        f"[![Open {section} on Colab](https://img.shields.io/badge/{quote(section.replace('_', ' '))}-Colab-f9ab00"
        f"?logo=googlecolab)]({colab_url(path, root)})"
        for section, path in sorted(first.items())
    ]
    return "\n".join([binder, *colab])


def carriers(root: Path = ROOT) -> list[str]:
    """The files that carry the slug: pyproject.toml by hand; README.md, the map's data and the notebooks from it."""
    notebooks = sorted(p.relative_to(root).as_posix() for p in (root / "notebooks").rglob("*.ipynb"))
    carrying = [path for path in notebooks if slug(root) in (root / path).read_text("utf-8")]
    return ["pyproject.toml", "README.md", "labkit/chapters.json", *carrying]


def reveals(root: Path = ROOT) -> bool:
    """Whether learners may have solutions shown: [tool.course] says `reveal = false` where they may not."""
    return bool(_course(root).get("reveal", True))


def set_slug(new: str, root: Path = ROOT) -> list[str]:
    """Publish as `new` (OWNER/NAME): rewrite pyproject.toml and README.md, whole or not at all.

    Returns the files that changed. The notebooks follow with the next `autograde build`. ValueError, and nothing
    written, where `new` is no slug or a file is not as it should be.
    """
    old, new = _course(root), _valid(new)
    before = (root / "pyproject.toml").read_text(encoding="utf-8")
    after, count = _LINE.subn(rf'\g<1>"{new}"', before)
    if count != 1 or "repository" not in old:
        raise ValueError('pyproject.toml needs one line `repository = "OWNER/NAME"` under [tool.course]')
    _split(root)  # README must be fit to be rewritten before anything is
    if after != before:
        _rewrite(root / "pyproject.toml", after)
    return ["pyproject.toml"] * (after != before) + ["README.md"] * write_badges(root)


def write_badges(root: Path = ROOT) -> bool:
    """Bring README's badges up to date with the slug and the chapters. Says whether the file changed."""
    head, old, tail = _split(root)
    new = f"{_BEGIN}\n{badges(root)}\n{_END}"
    if new != old:
        _rewrite(root / "README.md", head + new + tail)
    return new != old


def _split(root: Path) -> tuple[str, str, str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    begin, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= begin < end:
        raise ValueError(f"README.md needs the lines `{_BEGIN}` and `{_END}` around its badges")
    end += len(_END)
    return text[:begin], text[begin:end], text[end:]


def _course(root: Path) -> dict:
    path = root / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("course", {})
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: this works in a copy of the whole repository") from None


def _valid(text: str) -> str:
    found = _SLUG.fullmatch(text)
    if not found or found["name"] in (".", "..") or found["name"].endswith(".git") or len(found["owner"]) > 39:
        raise ValueError(f"{text!r} is not a repository: write OWNER/NAME, like ada/transformer-course")
    return text


def _rewrite(path: Path, text: str) -> None:
    replace(path, text, path.stat().st_mode)

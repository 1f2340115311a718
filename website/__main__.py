"""`python course.py site`: the whole course as a website, in build/site/html."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from pathlib import Path

from autograde.authoring import build
from autograde.authoring.chapter import AuthoringError
from autograde.files import in_words
from autograde.repository import ROOT
from website import running, sources

HERE = ROOT / "build" / "site"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python course.py site", description="Build the course's website.")
    parser.add_argument("--no-run", action="store_true", help="run no chapter: show the outputs that are kept")
    asked = parser.parse_args(arguments)
    try:
        solved = build.sources(ROOT)
        if not asked.no_run:
            running.run_missing(solved, say)
        missing = sources.write(HERE, solved)
        say(f"Making the pages of {len(solved)} chapters.")
        code = make(HERE)
    except AuthoringError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(in_words(error))
        return 1
    if missing:
        say("\n".join([f"Without outputs, and the pages say so ({len(missing)}):", *(f"  {each}" for each in missing)]))
    say(f"{'The site has faults, see above. It is' if code else 'The site is'} here: {HERE / 'html' / 'index.html'}")
    return code


def make(folder: Path) -> int:
    """Make `folder`/html of `folder`/source with Sphinx, which complains of every link that leads nowhere."""
    from sphinx.cmd.build import build_main

    strict = ["-n", "-W", "--keep-going", "-q", "-j", "auto", "-b", "html"]
    where = ["-c", str(Path(__file__).parent), "-d", str(folder / "doctrees")]
    extra = ["-D", f"html_extra_path={folder / 'extra'}"]
    with warnings.catch_warnings():  # what myst-nb and myst-parser have yet to change for a later Sphinx
        for old in (DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", old)
        return build_main([*strict, *where, *extra, str(folder / "source"), str(folder / "html")])


def say(text: str) -> None:
    print(text, flush=True)


def end(signum, frame):
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("\nStopped. Run the same command again to continue.")
        sys.exit(130)

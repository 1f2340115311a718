"""The `autograde` command."""

from __future__ import annotations

import argparse
import pathlib
import sys

from autograde import repository
from autograde.classroom.commands import add_commands
from autograde.files import in_words
from autograde.slow_imports import iris_put_off


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        with iris_put_off():
            return options.run(options)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        wanted = "pip install -r requirements.txt"
        print(f"autograde: this command needs the package {error.name}. Install it with `{wanted}`.", file=sys.stderr)
    except ValueError as error:
        print(f"autograde: {error}", file=sys.stderr)
    except OSError as error:
        print(f"autograde: {in_words(error)}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autograde", description="Author and grade the course.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="make notebooks/ from solutions/")
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 where notebooks/ is out of date")
    build.set_defaults(run=_build)
    slug = commands.add_parser("slug", help="publish the course as OWNER/REPO: rewrite links and badges")
    slug.add_argument("repository", nargs="?", metavar="OWNER/REPO", help="leave out to refresh the badges alone")
    slug.set_defaults(run=_slug)
    readme = commands.add_parser("readme", help="bring README's badges, verdicts and picture up to date")
    readme.set_defaults(run=_readme)
    course = commands.add_parser("course", help="make an nbgrader course folder, or add chapters to one")
    course.add_argument("folder", type=pathlib.Path, help="a new or empty folder, or with chapters a course folder")
    some = "which chapters, such as 02_applications/02_sampling or a whole section (default: all)"
    course.add_argument("chapters", nargs="*", metavar="CHAPTER", help=some)
    course.add_argument("--each", action="store_true", help="each chapter is an assignment of its own, not its section")
    course.set_defaults(run=_course)
    add_commands(commands)
    return parser


def _build(options) -> int:
    from autograde.authoring import build, packaged
    from autograde.authoring.chapter import AuthoringError

    try:
        notebooks, data = (build.stale(), packaged.stale()) if options.check else (build.build(), packaged.build())
    except AuthoringError as error:
        print("\n".join([*error.problems, f"{len(error.problems)} to mend; nothing was written."]), file=sys.stderr)
        return 1
    changed = [*(f"notebooks/{path}" for path in notebooks), *data]
    if not options.check:
        print("\n".join([f"wrote {path}" for path in changed] or ["notebooks/ is up to date"]))
        return 0
    if changed:
        print("\n".join(f"{path} is out of date" for path in changed), file=sys.stderr)
        print("Run `autograde build` and commit what it writes.", file=sys.stderr)
    return 1 if changed else 0


def _slug(options) -> int:
    changed = repository.set_slug(options.repository) if options.repository else []
    if not options.repository and repository.write_badges():
        changed = ["README.md"]
    print("\n".join([f"wrote {path}" for path in changed] or ["nothing to change"]))
    return _build(argparse.Namespace(check=False)) if options.repository else 0


def _readme(options) -> int:
    from autograde.authoring import front

    print("\n".join([f"wrote {path}" for path in front.write()] or ["README.md is up to date"]))
    return 0


def _course(options) -> int:
    from autograde.classroom.course import make_course

    def told(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    made = make_course(options.folder, chapters=options.chapters, each=options.each, told=told)
    ready = f"{options.folder} is ready, with {', '.join(made)}"
    print(f"{ready}. Next: cd there and run `autograde release {made[0]}`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

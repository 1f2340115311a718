#!/usr/bin/env python3
"""Start the course: make its environment, then open it, test it, build it or measure it.

Any Python can read this file, so that an old one gets a sentence and not a syntax error. The rest of the launcher is
course_setup.py; both need nothing but the standard library.
"""

import os
import platform
import signal
import subprocess
import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "The course needs Python 3.11 or newer; you run %s: %s\n" % (platform.python_version(), sys.executable)
    )
    sys.exit(1)

import course_setup  # noqa: E402
from course_setup import AGAIN, BIN, PYTHON, ROOT, Stop, say  # noqa: E402

HELP = """usage: python course.py COMMAND [options]

  lab         open the course in JupyterLab       (--no-browser, --port 8890, and all else JupyterLab takes)
  test        run every check and every test      (options go to pytest: test -k rope; test gpu: what needs a GPU)
  build       make notebooks/ from solutions/     (--check: only say whether notebooks/ is up to date)
  bench       time and memory of every notebook   (--json FILE, chapters' names; bench tests, seeds, lab)
  site        make the website of the course      (--no-run: run no chapter, show the outputs that are kept)
  experiment  measure what a claim hangs on       (--list, --check, or claims such as T06.2)
  progress    what is solved, and where to go next  (part of a chapter's name, or --section 01)
  drill       practice the interview questions    (--lang zh, --topic rope, --new 5)
  interview   a mock interview, with a clock      (--topic, --difficulty, --minutes 45, --lang zh, --seed 7)
  cards       write the questions for Anki        (--lang zh or both, and the file: deck.apkg)
  setup       only make the environment           (and what a file such as requirements-anki.txt names)

The first run makes .venv beside this file; later runs start in seconds. All options of JupyterLab and of pytest:
.venv/bin/jupyter lab --help-all and .venv/bin/pytest --help."""

START = "00_start_here.ipynb"


def launch(command, cwd=ROOT, **variables):
    """Become `command`, so that signals reach it. Windows can't: wait for it there, and leave Ctrl-C to it."""
    env = course_setup.environment() | variables
    if os.name == "posix":
        os.chdir(cwd)
        os.execve(command[0], command, env)
    process = subprocess.Popen(command, cwd=cwd, env=env)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def lab(options):
    notebooks = os.path.join(ROOT, "notebooks")
    command = [PYTHON, "-m", "jupyterlab"]
    if not any(option.endswith(".ipynb") for option in options):
        if not os.path.exists(os.path.join(notebooks, START)):
            raise Stop("notebooks/%s is missing: run `python course.py build`, %s" % (START, AGAIN))
        # As the default address, so that it is also in the link that --no-browser prints.
        command.append("--LabApp.default_url=/lab/tree/" + START)
    # No question about news, and no request to anybody for it.
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if os.name == "posix" and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there may be nobody else
    settings = [os.path.join(ROOT, "jupyter"), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    return launch(command + options, cwd=notebooks, JUPYTER_CONFIG_PATH=os.pathsep.join(settings))


def test(options):
    """Style and freshness first, so that pytest has the last word. With options, only pytest; `gpu`: GPU paths only."""
    if options[:1] == ["gpu"]:
        return run([PYTHON, "-m", "labkit.gpu"] + options[1:])
    checks = [
        ("ruff check", [PYTHON, "-m", "ruff", "check", "."]),
        ("autograde build --check", [os.path.join(BIN, "autograde"), "build", "--check"]),
    ]
    codes, spread = [], ["-n", str(min(os.cpu_count() or 1, 4))]
    for name, command in [] if options else checks:
        codes.append(run(command))
        say("%s: %s" % (name, "FAILED, and so this run has, whatever follows" if codes[-1] else "passed"))
    codes.insert(0, run([PYTHON, "-m", "pytest"] + (options or spread)))
    return next((code for code in codes if code), 0)


def run(command):
    stdin = subprocess.DEVNULL if sys.stdin is None else None
    return subprocess.call(command, cwd=ROOT, env=course_setup.environment(), stdin=stdin)


def build(options):
    return launch([os.path.join(BIN, "autograde"), "build"] + options)


def site(options):
    return launch([PYTHON, "-m", "website"] + options)


def bench(options):
    return launch([PYTHON, "-m", "autograde.bench"] + options)


def experiment(options):
    return launch([PYTHON, "-m", "experiments"] + options)


def progress(options):
    return launch([PYTHON, "-m", "labkit.course_map"] + options)


def drill(options):
    return launch([PYTHON, "-m", "autograde.practice.drill"] + options)


def interview(options):
    return launch([PYTHON, "-m", "autograde.practice.interview"] + options, cwd=os.getcwd())


def cards(options):
    return launch([PYTHON, "-m", "autograde.practice.anki"] + options, cwd=os.getcwd())


def setup(options):
    for file in options:
        if run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", file]):
            raise Stop("What %s names can't be installed" % file)
    say("Ready. Open the course with: python course.py lab")
    return 0


def end(signum, frame):
    raise SystemExit(128 + signum)


def main(arguments):
    known = (lab, test, build, site, bench, experiment, progress, drill, interview, cards, setup)
    commands = {command.__name__: command for command in known}
    if not arguments or arguments[0] == "help" or {"-h", "--help"} & set(arguments):
        say(HELP)
        return 0
    if arguments[0] not in commands:
        say("There is no command %r.\n\n%s" % (arguments[0], HELP))
        return 2
    try:
        signal.signal(signal.SIGTERM, end)
        course_setup.setup()
        return commands[arguments[0]](arguments[1:])
    except KeyboardInterrupt:
        say("\nStopped. Run the same command again to continue.")
        return 130
    except Stop as stop:
        say("\n%s." % stop)
    except OSError as error:
        say("\n%s." % course_setup.explain_os(error))
    return 1


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))

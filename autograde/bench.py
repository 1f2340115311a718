"""Time and memory of every notebook, every check and of grading, beside the budgets: `python course.py bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from autograde.files import replace
from autograde.processes import Peak
from autograde.repository import ROOT

WALL, MEMORY, FIGURE, CHECK, RANK_CHECK, ALL = 45.0, 1.3, 10.0, 0.3, 3.0, 24 * 60.0
SAMPLE = 0.05  # seconds between two looks at the memory
REPEATS = 3
TIMING = """
import json, statistics, time
from autograde.check import grade
from autograde.exercises import find
for name in {names!r}:
    seconds = []
    for _ in range({repeats}):
        start = time.perf_counter()
        report = grade(find(name), globals()[name])
        seconds.append(time.perf_counter() - start)
    print(json.dumps({{"name": name, "seconds": statistics.median(seconds), "ranks": find(name).ranks,
                      "earned": report.earned, "points": report.points}}))
"""


@dataclass
class Notebook:
    """One chapter: seconds and gigabytes of its solution, seconds to the first figure of its release.

    `processor`: seconds of all its processes together, which a busy machine hardly changes; None on Windows.
    """

    name: str
    wall: float
    peak: float
    first_figure: float | None
    error: str = ""
    processor: float | None = None


@dataclass
class Check:
    """One exercise: the median seconds of checking its solution, and what the solution earned."""

    name: str
    seconds: float
    ranks: bool
    earned: float
    points: float


def main(argv: list[str] | None = None) -> int:
    """Measure, show the table, write --json. Gives 1 where a notebook fails or a solution lacks points, else 0."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["tests"]:
        from autograde import bench_tests

        return bench_tests.main(argv[1:])
    if argv[:1] == ["seeds"]:
        from autograde import bench_seeds

        return bench_seeds.main(argv[1:])
    if argv[:1] == ["lab"]:
        from autograde import bench_lab

        return bench_lab.main(argv[1:])
    parser = argparse.ArgumentParser(prog="python course.py bench", description=__doc__)
    told = (
        "only chapters with this in their name; `classroom` measures grading; before all else `tests` measures the "
        "tests, `seeds` asks right solutions on many draws, and `lab` measures how soon the start page is there"
    )
    parser.add_argument("names", nargs="*", metavar="CHAPTER", help=told)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--run", nargs=3, metavar=("KIND", "NOTEBOOK", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.run:
        run(*options.run)
        return 0
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"there is no folder {options.json.resolve().parent}")
    notebooks, checks, pair, cut = [], [], None, False
    try:
        measure(options.names, notebooks, checks)
        pair = grading() if not options.names or "classroom" in options.names else None
    except KeyboardInterrupt:
        cut = True
        print("Stopped. What follows was measured before that.", file=sys.stderr)
    if not notebooks and not pair:
        return 130 if cut else parser.error(f"no chapter has {' or '.join(options.names)} in its name")
    print("\n" + table(notebooks, checks) if notebooks else "")
    print("\n" + pair.text if pair else "")
    if options.json:
        told = {"machine": machine(), "notebooks": list(map(asdict, notebooks)), "checks": list(map(asdict, checks))}
        told["grading"] = asdict(pair) if pair else None
        replace(options.json, json.dumps(told, indent=2) + "\n")
    return 130 if cut else int(any(n.error for n in notebooks) or any(c.earned < c.points for c in checks))


def measure(names: list[str], notebooks: list[Notebook], checks: list[Check]) -> None:
    """Every chapter in turn: its solution, the first figure of its release, its checks; added to the two lists."""
    import nbformat

    from autograde.authoring.build import solution_notebooks

    with tempfile.TemporaryDirectory() as folder:
        for path in solution_notebooks(Path(folder)):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if not names or any(part in name for part in names):
                print(f"{name} … ", end="", file=sys.stderr, flush=True)
                before = _processor()
                told, peak = watched("solution", path)
                took = None if before is None else _processor() - before
                figure, _ = watched("figure", ROOT / "notebooks" / f"{name}.ipynb")
                found = Notebook(name, told["wall"], peak, figure.get("first_figure"), told.get("error", ""), took)
                notebooks.append(found)
                print(f"{found.wall:.1f} s, {found.peak:.2f} GB", file=sys.stderr, flush=True)
                nbformat.write(only_checks(name), path)
                timed, _ = watched("checks", path)
                if timed.get("error"):
                    notebooks[-1].error = notebooks[-1].error or f"checks: {timed['error']}"
                checks += [Check(**json.loads(line)) for line in timed["printed"].splitlines()]


def _processor() -> float | None:
    """Processor seconds of all processes that were started here and have ended."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def grading():
    """nbgrader's autograde and ours on the same submissions, or None where there is no sandbox."""
    from autograde.classroom import pair
    from autograde.classroom.sandbox.isolation import NoSandbox, engine

    try:
        engine()
    except NoSandbox as error:
        print(f"grading is not measured: {error}", file=sys.stderr)
        return None
    print("grading, with nbgrader and with autograde …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return pair.measure(Path(folder))


def only_checks(name: str):
    """A notebook of a chapter's setup and exercise cells, solved, and a last cell that times the checks."""
    import jupytext
    from nbformat import v4

    source = jupytext.read(ROOT / "solutions" / f"{name}.py", fmt="py:percent")
    wanted = [c for c in source.cells if "exercise" in c.metadata or "setup" in c.metadata.get("tags", ())]
    names = [cell.metadata["exercise"] for cell in wanted if "exercise" in cell.metadata]
    timing = v4.new_code_cell(TIMING.format(names=names, repeats=REPEATS))
    return v4.new_notebook(cells=[*wanted, timing], metadata=source.metadata)


def watched(kind: str, notebook: Path) -> tuple[dict, float]:
    """Run a notebook in a process of its own. Gives what `run` told, and the peak of its memory in gigabytes."""
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        command = [sys.executable, "-m", "autograde.bench", "--run", kind, str(notebook), str(result)]
        with open(log, "wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            peak = Peak(psutil.Process(process.pid))
            try:
                while process.poll() is None:
                    peak.look()
                    time.sleep(SAMPLE)
            finally:
                process.terminate()  # only where this was interrupted
                process.wait()
        if process.returncode:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2]
            return {"wall": 0.0, "printed": "", "error": last or f"ended with {process.returncode}"}, peak.bytes / 1e9
        return json.loads(result.read_text(encoding="utf-8")), peak.bytes / 1e9


def run(kind: str, notebook: str, result: str) -> None:
    """Inside the process of its own: run `notebook`, and write what was seen to the file `result`.

    `kind` is solution or checks (stop at an error), or figure (go past errors, and stop at the first figure).
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    seen: dict = {"printed": ""}

    class Watching(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            content = msg["content"]
            if _has_picture(content.get("data", {})):
                seen.setdefault("first_figure", time.perf_counter() - start)
            if content.get("name") == "stdout" and kind == "checks":
                seen["printed"] += content["text"]
            return super().process_message(msg, cell, cell_index)

    book = nbformat.read(notebook, as_version=4)
    place = {"metadata": {"path": str(Path(notebook).parent)}}
    client = Watching(book, timeout=ALL, allow_errors=kind == "figure", resources=place)
    start = time.perf_counter()
    try:
        with client.setup_kernel():
            for index, cell in enumerate(book.cells):
                if cell.cell_type == "code" and not (kind == "figure" and "first_figure" in seen):
                    client.execute_cell(cell, index)
            seen["wall"] = time.perf_counter() - start
    except CellExecutionError as error:
        seen |= {"wall": time.perf_counter() - start, "error": f"{error.ename}: {error.evalue}"}
    Path(result).write_text(json.dumps(seen), encoding="utf-8")


def _has_picture(data: dict) -> bool:
    return any(mime.startswith("image/") for mime in data) or "<img" in data.get("text/html", "")


def table(notebooks: list[Notebook], checks: list[Check]) -> str:
    """Both tables as text; `!` marks what is over its budget."""

    def cell(value: float | None, budget: float, unit: str) -> str:
        return "none" if value is None else f"{value:.2f} {unit}{' !' if value > budget else '  '}"

    over = [f"wall (≤ {WALL:.0f} s)", f"peak (≤ {MEMORY} GB)", f"first figure (≤ {FIGURE:.0f} s)", "processor", ""]
    rows = [["notebook", *over]]
    for n in notebooks:
        numbers = [cell(n.wall, WALL, "s"), cell(n.peak, MEMORY, "GB"), cell(n.first_figure, FIGURE, "s")]
        rows.append([n.name, *numbers, cell(n.processor, float("inf"), "s"), n.error])
    rows.append(["all", cell(sum(n.wall for n in notebooks), ALL, "s"), f"(≤ {ALL / 60:.0f} min)", "", "", ""])
    rows += [[""], ["check", f"median of {REPEATS}", f"(≤ {CHECK} s; ranks {RANK_CHECK:.0f} s)", "points", "", ""]]
    for c in checks:
        budget = RANK_CHECK if c.ranks else CHECK
        rows.append([c.name, cell(c.seconds, budget, "s"), "ranks" * c.ranks, f"{c.earned:g} of {c.points:g}", "", ""])
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(6)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    about = machine()
    return "\n".join([*lines, "", f"{about['cpus']} CPUs, {about['system']}, Python {about['python']}"])


def machine() -> dict:
    """What the numbers were measured on."""
    count = getattr(os, "process_cpu_count", os.cpu_count)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count()
    return {"cpus": cpus, "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)

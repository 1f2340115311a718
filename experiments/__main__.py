"""`python course.py experiment [CLAIM ...]`: run experiments, list them, or check that results fit the code."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from autograde.files import replace
from labkit.errors import PlainError
from labkit.experiment import Evidence, Experiment, code_of, evidence, experiments, find_experiment, results_folder

MOST_BYTES = 200_000
_LIBRARIES = ("torch", "transformers", "numpy")


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        claims = options.claims or experiments()
        if options.list:
            return _list(claims)
        if options.check:
            return _check(claims)
        if not options.claims:
            print("Which claims? `--list` shows them. For all of them, a night's work: --all", file=sys.stderr)
            if not options.all:
                return 2
        for claim in claims:
            run(claim, afresh=options.afresh)
    except KeyboardInterrupt:
        print("\nStopped. What was measured is kept: run the same command again to go on.")
        return 130
    except PlainError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="course.py experiment", description="Run the course's experiments.")
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="such as T06.2")
    parser.add_argument("--list", action="store_true", help="every experiment with its minutes and its question")
    parser.add_argument("--check", action="store_true", help="whether each result is of the code that stands")
    parser.add_argument(
        "--all", action="store_true", help="run every experiment whose result is missing or out of date"
    )
    parser.add_argument("--afresh", action="store_true", help="forget what was measured before")
    return parser


def run(claim: str, afresh: bool = False) -> Evidence:
    """Measure what is still missing of a claim's experiment, and write its result once all is there.

    Each run is kept as soon as it is done, in a file beside the results that git ignores, so that nothing is measured
    twice when this is stopped. A result of other code is measured anew.
    """
    experiment, code = find_experiment(claim), code_of(claim)
    target, place = (results_folder() / f"{claim}{ending}.json" for ending in ("", ".part"))
    runs = [] if afresh else _kept(place, code, experiment) or _kept(target, code, experiment)
    done = {(each["arm"], each["seed"]) for each in runs}
    missing = [pair for pair in experiment.plan() if pair not in done]
    for number, (arm, seed) in enumerate(missing, start=1):
        start = time.perf_counter()
        found = experiment.run(arm, seed)
        seconds = time.perf_counter() - start
        ran = {"arm": arm, "settings": _settings(experiment, arm), "seed": seed}
        runs.append(ran | {"seconds": round(seconds, 1), "found": found})
        _write(place, {"claim": claim, "code": code, "runs": runs})
        left = (len(missing) - number) * sum(each["seconds"] for each in runs) / len(runs) / 60
        told = f"{claim}  {number}/{len(missing)}  {arm}, seed {seed}: {seconds:.0f} s"
        print(f"{told}, about {left:.0f} min left", flush=True)
    measured = {(each["arm"], each["seed"]): each for each in runs}
    runs = [measured[pair] for pair in experiment.plan()]
    made = _made() if missing else _old(claim).get("made") or _made()
    content = {"claim": claim, "code": code, "made": made, "runs": runs}
    content |= _concluded(experiment, Evidence(content))
    _write(target, content)
    place.unlink(missing_ok=True)
    print(f"{claim}: {content['verdict']}. {content['numbers']}")
    return Evidence(content)


def _concluded(experiment: Experiment, found: Evidence) -> dict:
    told = experiment.conclusion(found)
    return {name: told.get(name, {}) for name in ("verdict", "controls", "numbers")}


def _kept(path: Path, code: str, experiment: Experiment) -> list[dict]:
    """The runs in a file that are of this code and of these settings."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    runs = content["runs"] if content.get("code") == code else []
    return [each for each in runs if each["arm"] in experiment.arms and _fits(each, experiment)]


def _fits(each: dict, experiment: Experiment) -> bool:
    return each["settings"] == _settings(experiment, each["arm"])


def _settings(experiment: Experiment, arm: str) -> dict:
    """An arm's settings as a result keeps them."""
    return json.loads(json.dumps(dict(experiment.arms[arm]), default=str))


def _old(claim: str) -> dict:
    try:
        return json.loads((results_folder() / f"{claim}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _made() -> dict:
    versions = {name: version(name) for name in _LIBRARIES}
    return {"date": date.today().isoformat(), "processor": _processor(), "python": platform.python_version()} | versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} processors"


def _write(path: Path, content: dict) -> None:
    head = {name: value for name, value in content.items() if name != "runs"}
    rows = ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in content["runs"])
    text = json.dumps(head, ensure_ascii=False, indent=1).rstrip("}").rstrip()
    path.parent.mkdir(exist_ok=True)
    replace(path, f'{text},\n "runs": [\n  {rows}\n ]\n}}\n')


def _list(claims: list[str]) -> int:
    for claim in claims:
        experiment, old = find_experiment(claim), _old(claim)
        minutes = sum(each["seconds"] for each in old.get("runs", [])) / 60
        told = f"{minutes:5.1f} min" if old else "no result"
        print(f"{claim:7} {told}  {len(experiment.arms)} arms × {len(experiment.seeds)} seeds  {experiment.question}")
    return 0


def _check(claims: list[str]) -> int:
    wrong = [problem for claim in claims for problem in problems(claim)]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(f"{len(claims)} results are of the code that stands.")
    return 0


def problems(claim: str) -> list[str]:
    """What is wrong with a claim's result, one sentence each."""
    experiment, old = find_experiment(claim), _old(claim)
    again = f"run `python course.py experiment {claim}`"
    if not old:
        return [f"{claim} has no result: {again}."]
    if old["code"] != code_of(claim):
        return [f"{claim}: the result is of other code: {again}."]
    found, wrong = evidence(claim), []
    if [(each["arm"], each["seed"]) for each in found.runs] != experiment.plan():
        return [f"{claim}: arms or seeds are missing: {again}."]
    if not all(_fits(each, experiment) for each in found.runs):
        return [f"{claim}: an arm has other settings by now: {again}."]
    if _concluded(experiment, found) != {name: old[name] for name in ("verdict", "controls", "numbers")}:
        wrong.append(f"{claim}: the conclusion is another one by now: {again}.")
    wrong += [f"{claim}: control `{name}` fails." for name in experiment.controls() if not found.controls.get(name)]
    size = (results_folder() / f"{claim}.json").stat().st_size
    if size > MOST_BYTES:
        wrong.append(f"{claim}: the result has {size:,} bytes; at most {MOST_BYTES:,} are kept.")
    return wrong


if __name__ == "__main__":
    sys.exit(main())

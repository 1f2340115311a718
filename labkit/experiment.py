"""Experiments that need more than a notebook's seconds: what they measure, what is kept of them, what follows from it.

An experiment is one file, experiments/CLAIM.py, with a claim of the question bank, arms (settings that are compared),
seeds, and controls: an arm that must show the effect and one that must not. `python course.py experiment` runs every
arm with every seed and keeps each number in experiments/results/CLAIM.json. A chapter draws its figure from there, runs
one slice again before the reader's eyes, and computes its verdict; nothing is typed in by hand.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import PlainError

__all__ = [
    "Evidence",
    "Experiment",
    "Interval",
    "NoEvidence",
    "evidence",
    "experiments",
    "find_experiment",
    "interval",
    "wilson",
]


class NoEvidence(PlainError):
    """An experiment, a result or a number that isn't there. The message says what to do."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval: `interval`'s, by Student's t over seeds, or a share's, `wilson`'s.

    One value has no interval: it is NaN.
    """

    mean: float
    low: float
    high: float
    n: int

    def above(self, threshold: float) -> bool:
        """Whether the whole interval is above the threshold."""
        return self.low > threshold

    def below(self, threshold: float) -> bool:
        """Whether the whole interval is below the threshold."""
        return self.high < threshold

    def within(self, low: float, high: float) -> bool:
        """Whether the whole interval lies between the two."""
        return low < self.low and self.high < high

    def text(self, form: str = ".2f") -> str:
        """The interval for a sentence: "0.12 to 0.34"."""
        return f"{self.low:{form}} to {self.high:{form}}"


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent measurements and its 95 % confidence interval (Student's t, n - 1 degrees of freedom)."""
    values = [float(value) for value in values]
    if not values:
        raise NoEvidence("An interval needs at least one value.")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def wilson(hits: float, n: int) -> Interval:
    """The share of `hits` among `n` independent cases and Wilson's 95 % interval, which never leaves 0 to 1."""
    if n < 1 or not 0 <= hits <= n:
        raise NoEvidence("A share needs at least one case, and no more hits than cases.")
    share, z = hits / n, statistics.NormalDist().inv_cdf(0.975)
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (middle - half) / scale, (middle + half) / scale
    return Interval(share, low if hits else 0.0, high if hits < n else 1.0, n)  # else rounding puts it past the share


@dataclass
class Experiment:
    """One claim, put to a test that could come out either way.

    claim:      the id in the question bank, such as "T06.2". The file is named after it: experiments/T06_2.py.
    question:   what is asked, in one sentence.
    arms:       name -> settings, which `measure` gets as keyword arguments.
    seeds:      each arm runs with each of them.
    shows:      positive control: the arm in which the effect has to be seen, or a sentence why there can be none.
    shows_not:  negative control: the arm in which it must not be seen, or a sentence why there can be none.
    live:       (arm, seed) of the slice that the chapter runs again.
    within:     name of a number -> how far the slice may be off on another machine (default: the seeds' own spread).
    """

    claim: str
    question: str
    arms: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    shows: str
    shows_not: str
    live: tuple[str, int]
    within: Mapping[str, float] = field(default_factory=dict)
    _measure: Callable | None = None
    _conclude: Callable | None = None

    def measure(self, function: Callable) -> Callable:
        """Decorates `measure(seed, **settings)`: one run. It gives a dict of numbers, or of lists of numbers."""
        self._measure = function
        return function

    def conclude(self, function: Callable) -> Callable:
        """Decorates `conclude(evidence)`: what follows.

        It gives a dict: "verdict" as in the question bank, "controls" with what the two controls showed as booleans
        (`shows`, `shows_not`; left out where there is none), and "numbers", texts by name for figures and cards.
        """
        self._conclude = function
        return function

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Measure one arm with one seed, from the same state of torch's generator everywhere."""
        import torch

        torch.manual_seed(seed)
        found = self._measure(seed, **self.arms[arm])
        return {name: _plain(value) for name, value in found.items()}

    def plan(self) -> list[tuple[str, int]]:
        """Every (arm, seed), seed by seed, so that a run that is cut short has something of each arm."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def controls(self) -> dict[str, str]:
        """The arms among `shows` and `shows_not`; where a sentence stands instead, nothing."""
        both = {"shows": self.shows, "shows_not": self.shows_not}
        return {name: arm for name, arm in both.items() if arm in self.arms}

    def conclusion(self, found: Evidence) -> dict[str, Any]:
        """What follows from the evidence, see `conclude`."""
        return self._conclude(found)


class Evidence:
    """The numbers of an experiment: every arm's, every seed's.

    `numbers` holds the texts that `conclude` made, by name, `verdict` its verdict, `made` when and on what it was run.
    """

    def __init__(self, content: Mapping[str, Any]):
        self.claim: str = content["claim"]
        self.made: dict[str, Any] = content.get("made", {})
        self.code: str = content.get("code", "")
        self.verdict: str = content.get("verdict", "")
        self.numbers: dict[str, str] = content.get("numbers", {})
        self.controls: dict[str, bool] = content.get("controls", {})
        self.runs: list[dict[str, Any]] = list(content["runs"])

    @property
    def arms(self) -> list[str]:
        """The arms, in the experiment's order."""
        return list(dict.fromkeys(run["arm"] for run in self.runs))

    def each(self, arm: str, number: str) -> list:
        """One value a seed, in the order of the seeds: what `measure` called `number`."""
        found = [run["found"] for run in sorted(self.runs, key=lambda run: run["seed"]) if run["arm"] == arm]
        if not found or number not in found[0]:
            known = ", ".join(found[0]) if found else ", ".join(self.arms)
            raise NoEvidence(f"{self.claim} has no {number!r} of {arm!r}; it has {known}.")
        return [each[number] for each in found]

    def interval(self, arm: str, number: str, minus: str | None = None) -> Interval:
        """Of an arm's number over the seeds; with `minus` of the difference to another arm, seed by seed."""
        values = self.each(arm, number)
        if minus is not None:
            values = [mine - other for mine, other in zip(values, self.each(minus, number), strict=True)]
        return interval(values)

    def factor(self, number: Callable[[Evidence], float]) -> Interval:
        """Of a positive number that follows from the runs of a seed: its geometric mean over the seeds, and 95 %."""
        content = {"claim": self.claim, "made": self.made}
        seeds = sorted({run["seed"] for run in self.runs})
        alone = (Evidence(content | {"runs": [run for run in self.runs if run["seed"] == seed]}) for seed in seeds)
        found = interval([math.log(number(each)) for each in alone])
        return Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)

    def again(self) -> str:
        """Run the experiment's live slice here and now, and say in a sentence whether it agrees with what is kept."""
        from labkit.memory import give_back

        experiment = find_experiment(self.claim)
        arm, seed = experiment.live
        give_back()  # a slice may be larger than all else in its chapter
        here = experiment.run(arm, seed)
        give_back()
        (kept,) = [run["found"] for run in self.runs if (run["arm"], run["seed"]) == (arm, seed)]
        apart = [name for name in kept if not self._near(experiment, arm, name, kept[name], here[name])]
        first = next(iter(kept))
        told = f"Run again here ({arm}, seed {seed}): {first} {_shown(here[first])}, kept {_shown(kept[first])}"
        return f"{told}; {' and '.join(apart)} differ by more than the seeds do." if apart else f"{told}. They agree."

    def _near(self, experiment: Experiment, arm: str, name: str, kept, here) -> bool:
        """Whether a number is as near to the one that is kept as the seeds are to each other."""
        pairs = list(zip(_flat(kept), _flat(here), strict=False))
        spread = experiment.within.get(name)
        if spread is None:
            over_seeds = list(zip(*(_flat(value) for value in self.each(arm, name)), strict=False))
            spread = max((max(values) - min(values) for values in over_seeds), default=0.0)
        return len(_flat(kept)) == len(_flat(here)) and all(abs(a - b) <= spread + 1e-6 * abs(a) for a, b in pairs)


def evidence(claim: str) -> Evidence:
    """What is kept of an experiment. Raises NoEvidence where nothing is."""
    path = results_folder() / f"{claim}.json"
    try:
        return Evidence(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        told = f"There is no result for {claim}: run `python course.py experiment {claim}` in a copy of the course."
        raise NoEvidence(told) from None


def experiments() -> list[str]:
    """The claims that have an experiment, in order."""
    names = [path.stem for path in _folder().glob("[A-Z][0-9][0-9]_*.py")]
    return sorted((name.replace("_", ".") for name in names), key=lambda claim: (claim[0], _numbers(claim)))


@functools.cache
def find_experiment(claim: str) -> Experiment:
    """The experiment of a claim. Raises NoEvidence where there is none."""
    if claim not in experiments():
        raise NoEvidence(f"There is no experiment for {claim!r}; there is {', '.join(experiments()) or 'none at all'}.")
    return importlib.import_module(f"experiments.{claim.replace('.', '_')}").experiment


def code_of(claim: str) -> str:
    """A digest of what an experiment measures by: its code and what it shares with others, comments and layout aside.

    Arms and seeds don't count, for each run says its own; nor do words, controls and the conclusion, which change no
    number that was measured.
    """
    waiting, seen = [f"experiments.{claim.replace('.', '_')}"], {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        spec = importlib.util.find_spec(name)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        waiting += _imported(tree)
        seen[name] = ast.dump(_without_texts(tree))
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()[:16]


def results_folder() -> Path:
    """Where the results lie."""
    return _folder() / "results"


def _folder() -> Path:
    spec = importlib.util.find_spec("experiments")
    if spec is None or not spec.submodule_search_locations:
        raise NoEvidence("The course's folder experiments/ isn't installed here.")
    return Path(next(iter(spec.submodule_search_locations)))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "experiments":
            yield node.module


def _without_texts(tree: ast.Module) -> ast.Module:
    """The tree without what is only said."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Experiment":
            node.args, node.keywords = [], []
        if isinstance(node, ast.FunctionDef) and any("conclude" in ast.unparse(d) for d in node.decorator_list):
            node.body = [ast.Pass()]
    return tree


def _plain(value: Any) -> Any:
    """Numbers and lists of numbers as JSON has them, rounded to six digits: a result is read by people, too."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value


def _flat(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for item in value for number in _flat(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def _shown(value: Any) -> str:
    numbers = _flat(value)
    return ", ".join(f"{number:.4g}" for number in numbers[:4]) + (" …" if len(numbers) > 4 else "")


def _numbers(claim: str) -> list[int]:
    return [int(part) for part in claim[1:].split(".")]

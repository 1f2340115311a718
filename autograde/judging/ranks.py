"""Run implementations of a rank exercise on several processes, and bring home values and messages."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence

from autograde.exercise import Case, Exercise, PerRank
from autograde.judging.calls import Bounded, Failure, Outcome, over, run_once
from autograde.judging.limits import left

# Starting ranks takes its time on a busy machine; a deadlock is found long before the limit, by its stillness.
_LIMIT = 6
_ALONE = ("raised", "not implemented", "needs")  # failures that cost no time, so that the other cases are tried, too
_GRACE = 1.0  # seconds that a rank waits for the others to fail as it did


class RankFailed(Exception):
    """Carries one rank's failure to the process that launched it."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure

    def __reduce__(self):
        return RankFailed, (self.failure,)


def run_on_ranks(implementations: Sequence[Callable], exercise: Exercise, cases: Sequence[Case]) -> list[list[Outcome]]:
    """One list of outcomes an implementation, one outcome a case.

    A case in which all ranks fail before a word was said fails alone. Any other failure ends the launch, and one and
    the same outcome stands for all its cases: in which of them it was, nobody knows.

    All cases of one number of ranks share a launch, and so do the implementations as long as none of them fails. One
    whose ranks got stuck is not tried with other numbers of ranks: they would get stuck, too, and that takes long.
    """
    outcomes: list[dict[int, Outcome]] = [{} for _ in implementations]
    for world in sorted({one.ranks for one in cases}):
        mine = [i for i, one in enumerate(cases) if one.ranks == world]
        going = [k for k, known in enumerate(outcomes) if not _stuck(known)]
        for known in outcomes:
            known.update(dict.fromkeys(mine, _stuck(known)))
        results = _launch([implementations[k] for k in going], exercise, [cases[i] for i in mine], world)
        for k, found in zip(going, results, strict=True):
            outcomes[k].update(zip(mine, found, strict=True))
    return [[known[i] for i in range(len(cases))] for known in outcomes]


def _stuck(known: dict[int, Outcome]) -> Outcome | None:
    """The outcome in which the ranks got stuck, if there is one."""
    return next((o for o in known.values() if o.failure and o.failure.type in ("deadlock", "too slow")), None)


def _launch(implementations: Sequence[Callable], exercise: Exercise, cases: list[Case], world: int):
    from labkit.launch import RankError, launch

    if not implementations:
        return []
    if not left():
        return [[Outcome(failure=over())] * len(cases) for _ in implementations]
    out = Bounded()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            limit = min(_LIMIT * exercise.limit, left())
            per_rank = launch(_on_rank, list(implementations), _bare(exercise), cases, ranks=world, limit=limit)
    except RankError as error:
        if len(implementations) > 1:  # one of them took the others along
            return [_launch([one], exercise, cases, world)[0] for one in implementations]
        return [[Outcome(failure=_failure(error), printed=out.getvalue())] * len(cases)]
    flat = [_together(results, out.getvalue()) for results in zip(*per_rank, strict=True)]
    return [flat[i : i + len(cases)] for i in range(0, len(flat), len(cases))]


def _bare(exercise: Exercise) -> Exercise:
    """What a rank needs of an exercise. With oracle and laws it would import every library that they judge by."""
    needed = ("name", "points", "probe", "ranks", "forbid", "mutates", "limit")
    return Exercise(cases=tuple, **{name: getattr(exercise, name) for name in needed})


def _together(results: Sequence[tuple[Outcome, list]], printed: str) -> Outcome:
    """What the ranks brought home from one case, as one outcome."""
    if failed := next((result.failure for result, _ in results if result.failure), None):
        return Outcome(failure=failed, printed=printed)
    value = PerRank([result.value for result, _ in results], [traffic for _, traffic in results])
    changed, shared = (
        tuple(sorted({name for result, _ in results for name in getattr(result, of)})) for of in ("changed", "shared")
    )
    said = "".join(f"[rank {r}] {result.printed}" for r, (result, _) in enumerate(results) if result.printed)
    return Outcome(value, None, changed, said or printed, shared)


def _on_rank(implementations: list[Callable], exercise: Exercise, cases: list[Case]) -> list[tuple[Outcome, list]]:
    """Runs on every rank: each implementation on each case in turn, with the messages it sent."""
    import torch.distributed as dist

    from labkit import record_traffic

    results = []
    for implementation in implementations:
        for one in cases:
            with record_traffic() as traffic:
                outcome = run_once(implementation, exercise, one)
            failed = outcome.failure
            if failed and (traffic or failed.kind not in _ALONE or not _all_failed(f"failed in {len(results)}")):
                raise RankFailed(failed)
            results.append((outcome, list(traffic)))
            dist.barrier()
    return results


def _all_failed(place: str) -> bool:
    """Whether all ranks come here. Each says so in the store that they met by, which no collective of theirs uses."""
    import torch.distributed as dist

    store, world, last = dist.distributed_c10d._get_default_store(), dist.get_world_size(), time.monotonic() + _GRACE
    here = store.add(place, 1)
    while here < world and time.monotonic() < last:
        time.sleep(0.005)
        here = store.add(place, 0)
    return here == world


def _failure(error) -> Failure:
    if isinstance(error.error, RankFailed):
        return error.error.failure
    # A rank that has left the learner's code waits for the others in the barrier above.
    told = re.sub(r"waits in barrier, line \d+ in _on_rank.*", "has returned", str(error))
    return Failure("ranks", told, error.kind)

"""`warmup_cosine_lr(step, peak, warmup, total, floor=0.0)`

The learning rate of a step: a linear warm-up, then half a cosine down to the floor.
"""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import integer
from autograde.exercises.transformer.shared import Still

exercise = Draft(
    "warmup_cosine_lr",
    points=3,
    forbid=["transformers", "torch.optim"],
    atol=1e-6,
    no_gradient="a rate is a plain number",
    hints=[
        "Two pieces: before step `warmup` a line, after it a cosine. How much of the second piece is done?",
        "progress = (step - warmup) / (total - warmup), but at most 1. (1 + cos(π · progress)) / 2 falls from 1 to 0.",
        "if step < warmup: return peak * step / warmup; otherwise floor + (peak - floor) * (1 + math.cos(math.pi * "
        "progress)) / 2.",
    ],
)


@exercise.cases
def rate_cases(g):
    yield case(list(range(24)), 1.0, 5, 20, label="every step, and a few more than planned")
    yield case(list(range(14)), 3e-2, 0, 10, label="no warm-up")
    marks = [0, 1, 2, 5, 40, 41, 99, 100, 101, 500]
    mixed = [marks[i] for i in torch.randperm(len(marks), generator=g)]
    yield case(mixed, 0.5, 40, 100, floor=0.05, label="with a floor, in any order")
    far = [0, 1, 1999, 2000, 2001, 50_000, 99_999, 100_000, 100_001, 10**7]
    yield case(far, 3.0, 2000, 100_000, floor=0.3, label="a long plan")
    yield case([0, 1, 2, 3, 4, 5, 6, 7], 2.0, 1, 6, label="one step of warm-up")
    yield case([0, 1, 2], 0.1, 0, 1, floor=0.01, label="one step in all")
    yield case([0, 1, 2, 3, 4, 5], 0.7, 3, 4, label="one step of decay")
    yield case([5, 17, 33], 10.0, 12, 30, floor=10.0, label="the floor is the peak")
    peak, warmup = integer(g, 2, 9) / 10, integer(g, 3, 9)
    total = warmup + integer(g, 5, 20)
    yield case(list(range(total + 3)), peak, warmup, total, floor=peak / 8, label="a random plan")


@exercise.oracle
def hf_rates(steps, peak, warmup, total, floor=0.0):
    schedule_of = borrowed("transformers.optimization", "get_cosine_with_min_lr_schedule_with_warmup")
    schedule = schedule_of(Still(lr=peak), warmup, total, min_lr=floor)
    # Past `total` the library's cosine would rise again.
    return [peak * schedule.lr_lambdas[0](min(step, total)) for step in steps]


@exercise.probe
def rates(rate, steps, *args, **options):
    """The rate at each of the steps."""
    return [float(rate(step, *args, **options)) for step in steps]


def _every(steps):
    """Every how many steps to look, so that it isn't done much more than a hundred times."""
    return max(1, steps // 100)


@exercise.law("The marks are hit: peak, half way, floor")
def hits_the_marks(out, one, call):
    """The peak at the end of the warm-up, half way between peak and floor in the middle, the floor at the end."""
    _, peak, warmup, total = one.args
    floor = one.kwargs.get("floor", 0.0)
    marks = [warmup, total] + ([(warmup + total) // 2] if (warmup + total) % 2 == 0 else [])
    return same(
        call(marks, peak, warmup, total, floor=floor), [peak, floor, (peak + floor) / 2][: len(marks)], atol=1e-7
    )


@exercise.law("The warm-up is a straight line from 0")
def warmup_is_a_line(out, one, call):
    _, peak, warmup, total = one.args
    if not warmup:
        return None
    steps = range(0, warmup + 1, _every(warmup))
    found = call(list(steps), peak, warmup, total, floor=one.kwargs.get("floor", 0.0))
    return same(found, [peak * step / warmup for step in steps], atol=1e-7)


@exercise.law("After the peak the rate never rises")
def never_rises_again(out, one, call):
    _, peak, warmup, total = one.args
    steps = list(range(warmup, 3 * total + 2, _every(total)))
    found = call(steps, peak, warmup, total, floor=one.kwargs.get("floor", 0.0))
    return all(later <= earlier + 1e-9 for earlier, later in zip(found, found[1:], strict=False))


@exercise.law("Peak and floor so many times as large, the rate as well")
def grows_with_the_peak(out, one, call):
    steps, peak, warmup, total = one.args
    floor = one.kwargs.get("floor", 0.0)
    if not any(out):
        return None
    twice, tiny = (call(steps, c * peak, warmup, total, floor=c * floor) for c in (2, 1e-5))
    unlike = not same([1e5 * rate for rate in tiny], out, atol=1e-6)
    return same(twice, [2 * rate for rate in out], atol=1e-7) and (not unlike or "tiny rates lose digits")


def _progress(step, warmup, total):
    return min((step - warmup) / (total - warmup), 1.0)


def _half_cosine(far):
    return (1 + math.cos(math.pi * far)) / 2


def _land(share, peak, floor):
    return floor + (peak - floor) * share


def _planned(warm=lambda step, warmup: step / warmup, progress=None, fall=None, land=None):
    """A schedule in parts: the warm-up's share, how far the decay is, its share of the peak, and the way it lands."""

    def rate(step, peak, warmup, total, floor=0.0):
        if step < warmup:
            return peak * warm(step, warmup)
        far = (progress or _progress)(step, warmup, total)
        return (land or _land)((fall or _half_cosine)(far), peak, floor)

    return rate


exercise.mistake(
    "the warm-up is one step ahead: (step + 1) / warmup",
    hint="Step 0 has rate 0 here, and the peak comes at step `warmup`.",
)(_planned(lambda step, warmup: (step + 1) / warmup))

exercise.mistake(
    "the warm-up counts to warmup + 1",
    hint="peak * step / warmup, as in transformers. ((step + 1) / (warmup + 1) is nanoGPT's.)",
)(_planned(lambda step, warmup: (step + 1) / (warmup + 1)))

exercise.mistake("there is no warm-up", hint="Before step `warmup` the rate rises from 0.")(
    _planned(lambda step, warmup: 1.0)
)

planned = _planned()


@exercise.mistake("the warm-up starts at the floor", hint="It starts at 0.")
def warm_from_floor(step, peak, warmup, total, floor=0.0):
    if step < warmup:
        return floor + (peak - floor) * step / warmup
    return planned(step, peak, warmup, total, floor)


@exercise.mistake(
    "the floor holds after the plan only: the cosine falls to 0", hint="The cosine itself ends at the floor."
)
def floor_afterwards(step, peak, warmup, total, floor=0.0):
    return floor if step >= total else planned(step, peak, warmup, total)


@exercise.mistake("the rate is a share of the peak", hint="The rate itself: peak times the share.")
def share_of_peak(step, peak, warmup, total, floor=0.0):
    return planned(step, peak, warmup, total, floor) / peak


@exercise.mistake("the rate stays at the peak past the plan", hint="From step `total` on: the floor.")
def peak_afterwards(step, peak, warmup, total, floor=0.0):
    return peak if step > total else planned(step, peak, warmup, total, floor)


exercise.mistake("the warm-up is divided in whole numbers", hint="peak * step / warmup, with /, and not with //.")(
    _planned(lambda step, warmup: step // warmup)
)

exercise.mistake(
    "the floor is reached one step early, at total - 1", hint="The decay takes total - warmup steps: none is taken off."
)(_planned(progress=lambda step, warmup, total: min((step - warmup) / max(total - 1 - warmup, 1), 1.0)))

exercise.mistake("the warm-up follows a square root", hint="A line: peak * step / warmup.")(
    _planned(lambda step, warmup: math.sqrt(step / warmup))
)

exercise.mistake("the warm-up follows a cosine", hint="A line: peak * step / warmup.")(
    _planned(lambda step, warmup: (1 - math.cos(math.pi * step / warmup)) / 2)
)


@exercise.mistake(
    "without a warm-up step 0 has no rate",
    hint="Step `warmup` has the peak already, step 0 as well where warmup is 0: step < warmup.",
)
def warm_at_step_zero(step, peak, warmup, total, floor=0.0):
    """`<=` for `<`: without a warm-up step 0 has no rate."""
    return peak * step / max(warmup, 1) if step <= warmup else planned(step, peak, warmup, total, floor)


@exercise.mistake("the warm-up is cut off at the floor", hint="The floor is for the decay. The warm-up starts at 0.")
def warm_at_least_floor(step, peak, warmup, total, floor=0.0):
    return max(floor, planned(step, peak, warmup, total, floor))


exercise.mistake(
    "the decay is counted from step 0",
    hint="At the end of the warm-up no decay is done yet: (step - warmup) / (total - warmup).",
)(_planned(progress=lambda step, warmup, total: min(step / total, 1.0)))

exercise.mistake(
    "the decay is stretched over `total` steps after the warm-up", hint="Only total - warmup steps are left for it."
)(_planned(progress=lambda step, warmup, total: min((step - warmup) / total, 1.0)))

exercise.mistake("the decay is one step ahead", hint="(step - warmup) / (total - warmup).")(
    _planned(progress=lambda step, warmup, total: min((step - warmup + 1) / (total - warmup), 1.0))
)

exercise.mistake(
    "past the plan the cosine rises again",
    hint="From step `total` on the rate stays at the floor. (transformers' own schedule rises.)",
)(_planned(progress=lambda step, warmup, total: (step - warmup) / (total - warmup)))


@exercise.mistake(
    "at the end of the plan and past it the rate is 0", hint="From step `total` on it stays at the floor."
)
def nothing_at_the_end(step, peak, warmup, total, floor=0.0):
    """From `total` on the rate is 0 instead of the floor."""
    return 0.0 if step >= total else planned(step, peak, warmup, total, floor)


exercise.mistake("the cosine makes a full turn", hint="Half a turn: cos(π · progress).")(
    _planned(fall=lambda far: (1 + math.cos(2 * math.pi * far)) / 2)
)

exercise.mistake(
    "the cosine makes a quarter of a turn", hint="Half a turn, lifted and halved: (1 + cos(π · progress)) / 2."
)(_planned(fall=lambda far: math.cos(math.pi * far / 2)))

exercise.mistake("the decay is a straight line", hint="(1 + cos(π · progress)) / 2.")(
    _planned(fall=lambda far: 1 - far)
)

exercise.mistake("the cosine isn't halved", hint="1 + cos runs from 2 to 0: divide by 2.")(
    _planned(fall=lambda far: 1 + math.cos(math.pi * far))
)

exercise.mistake("the bare cosine is taken, which becomes negative", hint="(1 + cos) / 2.")(
    _planned(fall=lambda far: math.cos(math.pi * far))
)

exercise.mistake("the angle is taken for degrees", hint="math.cos wants radians.")(
    _planned(fall=lambda far: (1 + math.cos(math.pi * far * math.pi / 180)) / 2)
)

exercise.mistake(
    "the cosine runs the wrong way, up to the peak", hint="(1 + cos(π · progress)) / 2 falls from 1 to 0."
)(_planned(fall=lambda far: (1 - math.cos(math.pi * far)) / 2))

exercise.mistake(
    "the progress is rounded down to whole numbers", hint="(step - warmup) / (total - warmup), with /, and not with //."
)(_planned(progress=lambda step, warmup, total: min((step - warmup) // (total - warmup), 1)))

exercise.mistake("there is no decay", hint="After the warm-up the rate falls to the floor.")(
    _planned(fall=lambda far: 1.0)
)

exercise.mistake("`floor` is ignored", hint="The cosine ends at the floor, not at 0.")(
    _planned(land=lambda share, peak, floor: peak * share)
)

exercise.mistake(
    "`floor` is added on top of the whole cosine",
    hint="Then the peak is too high by `floor`: floor + (peak - floor) * share.",
)(_planned(land=lambda share, peak, floor: floor + peak * share))

exercise.mistake(
    "`floor` is taken for a share of the peak", hint="It is a learning rate itself: floor + (peak - floor) * share."
)(_planned(land=lambda share, peak, floor: peak * (floor + (1 - floor) * share)))

exercise.mistake(
    "the curve is cut off at the floor instead of ending there",
    hint="floor + (peak - floor) * share reaches the floor only at the end.",
)(_planned(land=lambda share, peak, floor: max(peak * share, floor)))

exercise.mistake("the peak is taken for 1 after the warm-up", hint="floor + (peak - floor) * share.")(
    _planned(lambda step, warmup: step / warmup, land=lambda share, peak, floor: share)
)

exercise.alternative(planned)


@exercise.alternative
def planned_by_minimum(step, peak, warmup, total, floor=0.0):
    """The lower of two curves: a rising line and a falling cosine that stays at its ends."""
    far = torch.tensor((step - warmup) / (total - warmup)).clamp(0, 1)
    cosine = floor + 0.5 * (peak - floor) * (1 + torch.cos(torch.pi * far))
    return torch.minimum(cosine, torch.tensor(peak * step / max(warmup, 1))) if step < warmup else cosine


@exercise.alternative
def planned_by_squares(step, peak, warmup, total, floor=0.0):
    """(1 + cos a) / 2 is cos² (a / 2)."""
    if step < warmup:
        return step * peak / warmup
    if step >= total:
        return floor
    turn = math.cos(0.5 * math.pi * (step - warmup) / (total - warmup)) ** 2
    return peak * turn + floor * (1 - turn)

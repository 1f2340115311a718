"""`zero_memory(numbers, ranks, stage, param=2, grad=2, state=12)`

Bytes of model states that the fullest rank holds under ZeRO's stages 0 to 3.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "zero_memory",
    points=2,
    strict=True,
    no_gradient="bytes are plain numbers",
    hints=[
        "Three kinds of states. Which of them are cut at stage 1, at stage 2, at stage 3?",
        "A rank holds either all numbers of a kind, or a part: the numbers divided by the ranks and rounded up, since "
        "the parts are equally long.",
        "part = -(-numbers // ranks); then add up param * (part if stage >= 3 else numbers), grad the same with 2, "
        "state with 1.",
    ],
)


@exercise.cases
def memory_cases(g):
    def odd(low, high, ranks):
        """A number that leaves 1 when it is divided by `ranks`: rounding to the nearest would round down."""
        return pick(g, low, high) * ranks + 1

    for stage in (0, 1, 2, 3):
        ranks = pick(g, 3, 9)
        yield case(odd(20, 900, ranks), ranks, stage, label=f"stage {stage}, a rest of one")
        yield case(7_500_000_000, 64, stage, label=f"stage {stage}, the paper's 7.5 billion on 64 ranks")
        sizes = {"param": pick(g, 3, 4), "grad": pick(g, 5, 7), "state": pick(g, 8, 9)}
        yield case(odd(20, 900, 7), 7, stage, **sizes, label=f"stage {stage}, other bytes by keyword")
        yield case(odd(20, 900, 6), 6, stage, 4, 3, pick(g, 8, 9), label=f"stage {stage}, other bytes in order")
    yield case(odd(10, 90, 2), 1, pick(g, 1, 3), label="one rank")
    yield case(pick(g, 2, 4), 9, pick(g, 1, 3), label="fewer numbers than ranks")
    yield case(pick(g, 10, 99) * 8, 8, 3, label="divides evenly")
    yield case(pick(g, 10, 99) * 8 - 1, 8, 3, label="one short of dividing evenly")


@exercise.oracle
def bytes_of_chunks(numbers, ranks, stage, param=2, grad=2, state=12):
    """torch cuts tensors that have a size and no memory; counted is the first rank, whose parts are the longest."""
    kinds = [torch.empty(numbers, size, dtype=torch.uint8, device="meta") for size in (state, grad, param)]
    return sum((x.chunk(ranks)[0] if stage > i else x).nbytes for i, x in enumerate(kinds))


@exercise.law("One rank alone holds everything, at every stage")
def _alone(out, one, call):
    numbers, _, _, *sizes = one.args
    whole = bytes_of_chunks(numbers, 1, 0, *sizes, **one.kwargs)
    return all(bool(call(numbers, 1, stage, *sizes, **one.kwargs) == whole) for stage in range(4))


@exercise.law("No stage holds more than the one before it")
def _falls(out, one, call):
    numbers, ranks, _, *sizes = one.args
    held = [call(numbers, ranks, stage, *sizes, **one.kwargs) for stage in range(4)]
    if ranks == 1 or numbers == 1:
        return None
    return all(a > b for a, b in zip(held, held[1:], strict=False)) or f"stages 0 to 3 hold {held} bytes"


def _memory(cut=lambda kind, stage: stage > kind, part=lambda numbers, ranks: -(-numbers // ranks), sizes=None):
    """Bytes with a part of the rule replaced. Kinds are 0 state, 1 gradients, 2 parameters."""

    def memory(numbers, ranks, stage, param=2, grad=2, state=12):
        each = sizes(param, grad, state) if sizes else (state, grad, param)
        return sum(x * (part(numbers, ranks) if cut(i, stage) else numbers) for i, x in enumerate(each))

    return memory


exercise.mistake(
    "the gradients are cut at stage 1 already", hint="Stage 1 cuts the optimizer's states, and nothing else."
)(_memory(lambda kind, stage: stage > max(kind - 1, 0) if kind == 1 else stage > kind))

exercise.mistake(
    "the parameters are cut at stage 2 already", hint="Stage 2 cuts states and gradients. Parameters come last."
)(_memory(lambda kind, stage: stage > min(kind, 1)))

exercise.mistake(
    "each stage cuts only its own kind, and leaves whole what the stages before it cut",
    hint="The stages add up: 1 cuts states, 2 states and gradients, 3 all.",
)(_memory(lambda kind, stage: stage == kind + 1))

exercise.mistake(
    "the kinds are cut in the order parameters, gradients, states",
    hint="What is needed least often is cut first: the states, which only the optimizer's step reads.",
)(_memory(lambda kind, stage: stage > 2 - kind))

exercise.mistake("nothing is cut at any stage", hint="From stage 1 on a rank holds a part of the states.")(
    _memory(lambda kind, stage: False)
)

exercise.mistake("stages 2 and 3 cut no more than stage 1", hint="Each stage cuts one kind more.")(
    _memory(lambda kind, stage: stage > 0 and kind == 0)
)

exercise.mistake(
    "gradients and parameters are taken for one another: stage 2 cuts the parameters, stage 3 the gradients, too",
    hint="Stage 2 cuts gradients, which live for one step; parameters are needed in every layer and come last.",
)(_memory(lambda kind, stage: stage > (0, 2, 1)[kind]))

exercise.mistake(
    "the optimizer's states take 8 bytes if nothing is said, without the master copy",
    hint="Adam's two moments and the float32 copy of the parameter: 12.",
)(lambda numbers, ranks, stage, param=2, grad=2, state=8: _memory()(numbers, ranks, stage, param, grad, state))

exercise.mistake(
    "a part is one number too long where the numbers divide evenly",
    hint="Round up, which changes nothing where there is no rest: -(-numbers // ranks).",
)(_memory(part=lambda numbers, ranks: numbers // ranks + 1))

exercise.mistake("the result is a float", hint="Bytes are whole numbers: // instead of /, or math.ceil.")(
    lambda *args, **kwargs: float(_memory()(*args, **kwargs))
)

exercise.mistake("the result is in gigabytes", hint="Bytes, a whole number.")(
    lambda *args, **kwargs: _memory()(*args, **kwargs) / 1e9
)

exercise.mistake("stage 0 is cut, too", hint="Stage 0 is plain data parallelism: everything on every rank.")(
    _memory(lambda kind, stage: stage >= kind)
)

exercise.mistake(
    "a part is rounded down, so that the parts together are too short",
    hint="Seven numbers on two ranks: 4 and 4, one of them padding.",
)(_memory(part=lambda numbers, ranks: numbers // ranks))

exercise.mistake(
    "a part is not rounded, and a number can't be split", hint="The parts are whole numbers, equally long: round up."
)(_memory(part=lambda numbers, ranks: numbers / ranks))

exercise.mistake("a part is rounded to the nearest whole number", hint="Round up: no number may be without a place.")(
    _memory(part=lambda numbers, ranks: round(numbers / ranks))
)

exercise.mistake(
    "the bytes of all ranks are added up", hint="What one rank holds is asked for: that is what has to fit."
)(lambda numbers, ranks, *args, **kwargs: ranks * _memory()(numbers, ranks, *args, **kwargs))

exercise.mistake("the optimizer's states are left out", hint="They are the largest part: 12 of 16 bytes.")(
    _memory(sizes=lambda param, grad, state: (0, grad, param))
)

exercise.mistake("the gradients are left out", hint="A gradient for every parameter: `grad` bytes each.")(
    _memory(sizes=lambda param, grad, state: (state, 0, param))
)

exercise.mistake(
    "the bytes of a parameter are taken for those of a gradient, too", hint="A gradient has `grad` bytes."
)(_memory(sizes=lambda param, grad, state: (state, param, param)))

exercise.mistake("the bytes are always 2, 2 and 12", hint="`param`, `grad` and `state` say how many each number has.")(
    _memory(sizes=lambda param, grad, state: (12, 2, 2))
)

exercise.mistake(
    "the bytes of a kind are divided instead of its numbers, so that a rank may hold half a number",
    hint="A rank holds whole numbers: round up the numbers, then multiply by the bytes.",
)(
    lambda numbers, ranks, stage, param=2, grad=2, state=12: sum(
        -(-x * numbers // ranks) if stage > i else x * numbers for i, x in enumerate((state, grad, param))
    )
)

exercise.mistake(
    "the whole sum is divided by the ranks at every stage above 0",
    hint="Only stage 3 divides everything.",
)(_memory(lambda kind, stage: stage > 0))


@exercise.alternative
def by_table(numbers, ranks, stage, param=2, grad=2, state=12):
    """Right: the paper's four lines."""
    part = math.ceil(numbers / ranks)
    rows = [
        (param + grad + state) * numbers,
        (param + grad) * numbers + state * part,
        param * numbers + (grad + state) * part,
        (param + grad + state) * part,
    ]
    return rows[stage]


@exercise.alternative
def by_counting(numbers, ranks, stage, param=2, grad=2, state=12):
    """Right: the parts of every rank, and the longest of them."""
    part = max(1, (numbers + ranks - 1) // ranks)
    left = {"state": numbers, "grad": numbers, "param": numbers}
    for kind in ["state", "grad", "param"][:stage]:
        left[kind] = part
    return left["state"] * state + left["grad"] * grad + left["param"] * param

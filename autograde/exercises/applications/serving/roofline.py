"""`roofline(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None)`

What a linear layer waits for, arithmetic or memory, and how long it takes at least.
"""

from __future__ import annotations

import functools
import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "roofline",
    points=2,
    rtol=1e-6,
    atol=0.0,
    no_gradient="operations and bytes are plain numbers",
    hints=[
        "Count twice: the operations of x @ W.T, and the bytes of x, of W and of y. What does each take by itself?",
        "2 · rows · d_in · d_out operations. rows · d_in and rows · d_out numbers of number_bytes, d_in · d_out of "
        "weight_bytes. Both go on at once, so the longer time counts.",
        "compute, memory = flops / flops_per_second, moved / bytes_per_second; return flops / moved, max(compute, "
        'memory), "compute" if compute >= memory else "memory".',
    ],
)


@exercise.cases
def layer_cases(g):
    def some(rows, label, d_in=None, d_out=None, flops=None, speed=None, **kwargs):
        d_in, d_out = d_in or 8 * pick(g, 20, 60), d_out or 8 * pick(g, 70, 150)
        flops, speed = flops or pick(g, 50, 90) * 1e12, speed or pick(g, 1, 3) * 1e12
        return case(rows, d_in, d_out, flops, speed, label=label, **kwargs)

    yield some(1, "one token: it waits for the weights")
    yield some(pick(g, 3, 9), "a few tokens, a wide layer", d_in=4096, d_out=14336)
    yield some(4096, "a long prompt: it waits for the arithmetic", flops=pick(g, 50, 90) * 1e11)
    yield some(pick(g, 3, 9), "float32", number_bytes=4)
    yield some(pick(g, 3, 9), "8-bit weights", weight_bytes=1)
    odd = 2 * pick(g, 80, 200) + 1
    yield some(pick(g, 30, 90), "4-bit weights, float32 beside them", d_in=odd, number_bytes=4, weight_bytes=0.5)
    yield some(4096, "8-bit weights, a long prompt", flops=pick(g, 50, 90) * 1e11, weight_bytes=1)
    yield some(pick(g, 100, 900), "a small layer: x and y outweigh it", d_in=3, d_out=5)
    yield some(1, "one number", d_in=1, d_out=1)
    yield case(2, 2, 2, 16.0, 24.0, label="both take as long")
    yield case(1, 4, 2, 16.0, 28.0, label="both take as long, another layer")


@functools.cache
def _flops(rows, d_in, d_out):
    from labkit.flops import Flops

    with Flops() as counter:
        torch.nn.functional.linear(torch.empty(rows, d_in, device="meta"), torch.empty(d_out, d_in, device="meta"))
    return counter.get_total_flops()


@exercise.oracle
def counted(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None):
    """Operations as torch's own counter sees them; bytes tensor by tensor."""
    flops = _flops(rows, d_in, d_out)
    x, weight, y = rows * d_in, d_out * d_in, rows * d_out
    moved = (x + y) * number_bytes + weight * (number_bytes if weight_bytes is None else weight_bytes)
    compute, memory = flops / flops_per_second, moved / bytes_per_second
    return flops / moved, max(compute, memory), "memory" if memory > compute else "compute"


@exercise.law("No layer is done sooner than its weights can be read")
def _weights_read(out, one, call):
    rows, d_in, d_out, _, speed = one.args
    each = one.kwargs.get("weight_bytes") or one.kwargs.get("number_bytes", 2)
    return bool(out[1] >= d_in * d_out * each / speed * (1 - 1e-9))


@exercise.law("Where it waits for memory, twice the arithmetic speed changes nothing but the name of the other limit")
def _faster_arithmetic(out, one, call):
    rows, d_in, d_out, flops, speed = one.args
    if out[2] != "memory":
        return None
    return math.isclose(call(rows, d_in, d_out, 2 * flops, speed, **one.kwargs)[1], out[1], rel_tol=1e-9)


def _wrong(flops=None, moved=None, seconds=max, bound=None, results=None):
    """A wrong roofline: the right one with a part replaced."""

    def roofline(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None):
        weight_bytes = number_bytes if weight_bytes is None else weight_bytes
        count = flops(rows, d_in, d_out) if flops else 2 * rows * d_in * d_out
        total = (rows * d_in + rows * d_out) * number_bytes + d_in * d_out * weight_bytes
        total = moved(rows, d_in, d_out, number_bytes, weight_bytes) if moved else total
        compute, memory = count / flops_per_second, total / bytes_per_second
        name = bound(compute, memory, count / total) if bound else "compute" if compute >= memory else "memory"
        found = count / total, seconds(compute, memory), name
        return results(found) if results else found

    return roofline


exercise.mistake(
    "a product and its sum count as one operation", hint="A multiply-add is two operations: peak FLOP/s count both."
)(_wrong(flops=lambda rows, d_in, d_out: rows * d_in * d_out))

exercise.mistake("only the weights are counted as moved", hint="x is read, too, and y is written.")(
    _wrong(moved=lambda rows, d_in, d_out, number, weight: d_in * d_out * weight)
)

exercise.mistake("the result is not counted as moved", hint="y has to be written to memory.")(
    _wrong(moved=lambda rows, d_in, d_out, number, weight: rows * d_in * number + d_in * d_out * weight)
)

exercise.mistake("x is not counted as moved", hint="x has to be read from memory, like the weights.")(
    _wrong(moved=lambda rows, d_in, d_out, number, weight: rows * d_out * number + d_in * d_out * weight)
)

exercise.mistake("the intensity is cut to a whole number", hint="The intensity is a fraction: /, not //.")(
    _wrong(results=lambda found: (float(found[0] // 1), *found[1:]))
)

exercise.mistake("a fraction of a byte counts as nothing", hint="weight_bytes may be 0.5: keep it as it is.")(
    _wrong(moved=lambda rows, d_in, d_out, number, weight: rows * (d_in + d_out) * number + d_in * d_out * int(weight))
)

exercise.mistake(
    "the weights are read again for every token, x and y once",
    hint="One pass over W serves all rows: that is why a batch pays.",
)(_wrong(moved=lambda rows, d_in, d_out, number, weight: rows * d_in * d_out * weight + (d_in + d_out) * number))

exercise.mistake(
    "the weights are read again for every token",
    hint="One pass over W serves all rows: that is why a batch pays.",
)(
    _wrong(
        moved=lambda rows, d_in, d_out, number, weight: rows * (d_in * d_out * weight + d_in * number + d_out * number)
    )
)

exercise.mistake(
    "numbers are counted in place of bytes", hint="The intensity is operations a byte: a number has number_bytes."
)(_wrong(moved=lambda rows, d_in, d_out, number, weight: rows * d_in + d_in * d_out + rows * d_out))

exercise.mistake("weight_bytes is not looked at", hint="With weight_bytes given, W has numbers of another size.")(
    _wrong(moved=lambda rows, d_in, d_out, number, weight: (rows * d_in + d_in * d_out + rows * d_out) * number)
)

exercise.mistake("x and y shrink with the weights", hint="weight_bytes is the size of the weights' numbers alone.")(
    _wrong(moved=lambda rows, d_in, d_out, number, weight: (rows * d_in + d_in * d_out + rows * d_out) * weight)
)

exercise.mistake("the two times are added", hint="Arithmetic and transfers overlap: the longer one is the time.")(
    _wrong(seconds=lambda compute, memory: compute + memory)
)

exercise.mistake("the shorter of the two times is taken", hint="The slower of the two decides.")(_wrong(seconds=min))

exercise.mistake(
    "compute and memory are swapped", hint="What takes longer is what the layer waits for: that is its bound."
)(_wrong(bound=lambda compute, memory, _: "memory" if compute >= memory else "compute"))

exercise.mistake("a tie is called memory", hint="The docstring says what a tie is called.")(
    _wrong(bound=lambda compute, memory, _: "compute" if compute > memory else "memory")
)

exercise.mistake(
    "the bound is read off the intensity alone, as if every machine balanced at one operation a byte",
    hint="Compare the intensity with the machine's own balance, flops_per_second / bytes_per_second.",
)(_wrong(bound=lambda compute, memory, intensity: "compute" if intensity >= 1 else "memory"))

exercise.mistake("the time is given in milliseconds", hint="Seconds are asked for.")(
    _wrong(results=lambda found: (found[0], 1000 * found[1], found[2]))
)

exercise.mistake("the intensity is upside down", hint="Operations a byte, not bytes an operation.")(
    _wrong(results=lambda found: (1 / found[0], *found[1:]))
)

exercise.mistake(
    "the second result is a speed in operations a second",
    hint="Seconds are asked for: how long it takes at least.",
)(lambda *args, **kwargs: _speed(*args, **kwargs))


def _speed(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None):
    right = _wrong()(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes, weight_bytes)
    return right[0], min(flops_per_second, right[0] * bytes_per_second), right[2]


exercise.mistake("numbers have four bytes if nobody says otherwise", hint="The default is 2 bytes a number.")(
    lambda *args, number_bytes=4, **kwargs: _wrong()(*args, number_bytes=number_bytes, **kwargs)
)


@exercise.alternative
def by_balance(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None):
    """Right: the attainable speed first, as the roof of the picture has it."""
    weight_bytes = number_bytes if weight_bytes is None else weight_bytes
    flops = 2 * rows * d_in * d_out
    intensity = flops / (number_bytes * rows * (d_in + d_out) + weight_bytes * d_in * d_out)
    attainable = min(flops_per_second, intensity * bytes_per_second)
    return intensity, flops / attainable, "compute" if attainable == flops_per_second else "memory"


@exercise.alternative
def in_tensors(rows, d_in, d_out, flops_per_second, bytes_per_second, number_bytes=2, weight_bytes=None):
    """Right: float64 tensors, the tie decided by argmax, which takes the first."""
    sizes = torch.tensor([rows * d_in, rows * d_out, d_in * d_out], dtype=torch.float64)
    each = [number_bytes, number_bytes, number_bytes if weight_bytes is None else weight_bytes]
    moved = sizes @ torch.tensor(each, dtype=torch.float64)
    flops = torch.tensor(2.0 * rows * d_in * d_out, dtype=torch.float64)
    times = torch.stack([flops / flops_per_second, moved / bytes_per_second])
    return flops / moved, times.max(), ("compute", "memory")[int(times.argmax())]

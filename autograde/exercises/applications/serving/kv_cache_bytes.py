"""`kv_cache_bytes(lengths, layers, kv_heads, head_dim, number_bytes=2, block=1, window=None)`

The memory that the keys and values of all running texts take.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "kv_cache_bytes",
    points=2,
    strict=True,
    no_gradient="bytes are whole numbers",
    hints=[
        "Begin with one token: how many numbers does each layer keep of it? How many tokens of each text are kept?",
        "A token has a key and a value of kv_heads · head_dim numbers in every layer. A text keeps at most `window` "
        "tokens, and takes whole blocks, each text its own.",
        "blocks = sum(-(-min(n, window) // block) for n in lengths) (without a window: n), and then blocks * block * "
        "2 * layers * kv_heads * head_dim * number_bytes.",
    ],
)


@exercise.cases
def cache_cases(g):
    def lengths(*of):
        return [of[i] for i in torch.randperm(len(of), generator=g).tolist()]

    def sizes():
        return pick(g, 5, 40), pick(g, 2, 8), 8 * pick(g, 5, 16)

    yield case([pick(g, 50, 90)], *sizes(), label="one text")
    yield case(lengths(3, 50, 17, 1), *sizes(), label="several texts")
    yield case(lengths(3, 50, 17), *sizes(), number_bytes=4, label="float32")
    yield case(lengths(3, 50, 17), *sizes(), number_bytes=1, label="FP8")
    yield case(lengths(33, 50, 16, 1, 17), *sizes(), block=16, label="blocks of 16 tokens")
    yield case(lengths(20, 5, 10, 11), *sizes(), block=5, label="blocks of 5 tokens, some texts fill theirs")
    yield case(lengths(100, 7, 41, 40), *sizes(), window=40, label="a window of 40 tokens")
    yield case(lengths(100, 7, 45, 30), *sizes(), block=16, window=40, label="a window that ends inside a block")
    yield case(lengths(6, 9, 3), *sizes(), 2, 4, 8, label="all by position")
    yield case(lengths(0, 3, 0), *sizes(), block=4, label="texts without a token")
    yield case([], *sizes(), label="no text")
    yield case([131_072] * 15, 126, 8, 128, block=16, label="Llama 3 405B, 15 full contexts")
    yield case([4096], 32, 32, 128, label="Llama 2 7B, its whole context")


@exercise.oracle
def of_tensors(lengths, layers, kv_heads, head_dim, number_bytes=2, block=1, window=None):
    """The bytes of tensors that really have these shapes; on the device "meta" they take no memory."""
    dtype = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}[number_bytes]

    def of_text(length):
        kept = length if window is None else min(length, window)
        shape = 2, layers, len(range(0, kept, block)), block, kv_heads, head_dim
        return torch.empty(shape, dtype=dtype, device="meta").nbytes

    return sum(map(of_text, lengths))


@exercise.law("The result is a whole number")
def _whole(out, one, call):
    return isinstance(out, int) and not isinstance(out, bool)


@exercise.law("Two groups of texts take together what each takes by itself")
def _adds_up(out, one, call):
    lengths, *rest = one.args
    if len(lengths) < 2:
        return None
    return call(lengths[:1], *rest, **one.kwargs) + call(lengths[1:], *rest, **one.kwargs) == out


@exercise.law("Blocks of one token waste nothing, larger ones less than a block for each text")
def _waste(out, one, call):
    lengths, layers, heads, head_dim, *more = one.args
    if more or one.kwargs.get("block", 1) == 1:
        return None
    exact = call(lengths, layers, heads, head_dim, **{**one.kwargs, "block": 1})
    token = 2 * layers * heads * head_dim * one.kwargs.get("number_bytes", 2)
    return exact <= out <= exact + len(lengths) * (one.kwargs["block"] - 1) * token


def _by(tokens=None, numbers=None, number_bytes=2, result=int):
    """A wrong size: the right one with a part replaced; `tokens` gives those of all texts, with what blocks add."""

    def kv_cache_bytes(lengths, layers, kv_heads, head_dim, number_bytes=number_bytes, block=1, window=None):
        kept = [n if window is None else min(n, window) for n in lengths]
        count = tokens(lengths, block, window) if tokens else sum(-(-n // block) * block for n in kept)
        each = numbers(layers, kv_heads, head_dim) if numbers else 2 * layers * kv_heads * head_dim
        return result(count * each * number_bytes)

    return kv_cache_bytes


def _kept(lengths, window):
    return [n if window is None else min(n, window) for n in lengths]


exercise.mistake("only keys or only values are counted", hint="A token leaves a key and a value behind.")(
    _by(numbers=lambda layers, heads, d: layers * heads * d)
)

exercise.mistake("one layer is counted", hint="Every layer has its own keys and values.")(
    _by(numbers=lambda layers, heads, d: 2 * heads * d)
)

exercise.mistake("the heads are left out", hint="Each of the kv_heads has a vector of head_dim numbers.")(
    _by(numbers=lambda layers, heads, d: 2 * layers * d)
)

exercise.mistake(
    "the blocks are rounded up once for all texts together",
    hint="Two texts never share a block: round up for each of them.",
)(_by(tokens=lambda lengths, block, window: -(-sum(_kept(lengths, window)) // block) * block))

exercise.mistake("half-filled blocks are not counted", hint="A block that is begun is taken: round up.")(
    _by(tokens=lambda lengths, block, window: sum(n // block * block for n in _kept(lengths, window)))
)

exercise.mistake(
    "a text that fills its last block gets one more", hint="16 tokens fit into one block of 16: ceil, not n // 16 + 1."
)(_by(tokens=lambda lengths, block, window: sum((n // block + 1) * block for n in _kept(lengths, window))))

exercise.mistake("tokens are rounded to the nearest block", hint="A block that is begun is taken: round up.")(
    _by(tokens=lambda lengths, block, window: sum(round(n / block) * block for n in _kept(lengths, window)))
)

exercise.mistake("a text without a token takes a block, too", hint="A text of 0 tokens takes none.")(
    _by(tokens=lambda lengths, block, window: sum(max(1, -(-n // block)) * block for n in _kept(lengths, window)))
)

exercise.mistake("blocks are counted as if each held one token", hint="A block has room for `block` tokens.")(
    _by(tokens=lambda lengths, block, window: sum(-(-n // block) for n in _kept(lengths, window)))
)

exercise.mistake("the window is that of all texts together", hint="Each text keeps up to `window` tokens of its own.")(
    _by(
        tokens=lambda lengths, block, window: min(
            sum(-(-n // block) * block for n in lengths), math.inf if window is None else window
        )
    )
)

exercise.mistake(
    "the window is cut to whole blocks first",
    hint="A text keeps `window` tokens, and the block that ends inside is whole.",
)(
    _by(
        tokens=lambda lengths, block, window: sum(
            -(-n // block) * block for n in _kept(lengths, None if window is None else window // block * block)
        )
    )
)

exercise.mistake("only the first text is counted", hint="All running texts have their keys and values in memory.")(
    _by(tokens=lambda lengths, block, window: sum(-(-n // block) * block for n in _kept(lengths[:1], window)))
)

exercise.mistake("the size of a block has no influence", hint="Memory is given out in whole blocks.")(
    _by(tokens=lambda lengths, block, window: sum(_kept(lengths, window)))
)

exercise.mistake("every text takes what the longest takes", hint="No padding here: each text has its own blocks.")(
    _by(
        tokens=lambda lengths, block, window: len(lengths) * -(-max(_kept(lengths, window), default=0) // block) * block
    )
)

exercise.mistake("the window has no influence", hint="With a window a text keeps at most that many tokens.")(
    _by(tokens=lambda lengths, block, window: sum(-(-n // block) * block for n in lengths))
)

exercise.mistake(
    "every text takes the whole window, also a shorter one", hint="A text of 7 tokens keeps 7, whatever the window."
)(
    _by(
        tokens=lambda lengths, block, window: sum(
            -(-(n if window is None else window) // block) * block for n in lengths
        )
    )
)

exercise.mistake(
    "the window cuts the rounded number of tokens",
    hint="Cut first, then round up: also the last block of a window is a whole one.",
)(
    _by(
        tokens=lambda lengths, block, window: sum(
            min(-(-n // block) * block, math.inf if window is None else window) for n in lengths
        )
    )
)

exercise.mistake("a number has four bytes if nobody says otherwise", hint="The default is 2 bytes a number.")(
    _by(number_bytes=4)
)

exercise.mistake("bits are counted", hint="number_bytes is in bytes already.")(_by(result=lambda n: 8 * n))

exercise.mistake("the result is a float", hint="Bytes are whole numbers: // or int.")(_by(result=float))


@exercise.alternative
def block_by_block(lengths, layers, kv_heads, head_dim, number_bytes=2, block=1, window=None):
    """Right: counted as they are given out."""
    total, one = 0, 2 * layers * kv_heads * head_dim * number_bytes * block
    for length in lengths:
        for _ in range(0, length if window is None else min(length, window), block):
            total += one
    return total


@exercise.alternative
def ceilings(lengths, layers, kv_heads, head_dim, number_bytes=2, block=1, window=None):
    window = max(lengths, default=0) if window is None else window
    blocks = sum(math.ceil(min(length, window) / block) for length in lengths)
    return math.prod([2, layers, kv_heads, head_dim, number_bytes, block, blocks])

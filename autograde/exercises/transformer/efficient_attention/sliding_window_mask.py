"""`sliding_window_mask(n, window, causal=True, past=0)`: The mask of sliding-window attention."""

from __future__ import annotations

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import integer

exercise = Draft(
    "sliding_window_mask",
    points=2,
    forbid=["transformers"],
    no_gradient="a mask holds truth values",
    hints=[
        "How far back does key j lie from query i? One table of distances answers every question here.",
        "The places of the queries are torch.arange(past, past + n), those of the keys torch.arange(past + n). "
        "distance = queries[:, None] - keys.",
        "distance < window, and distance >= 0 if causal, else distance > -window. Before that: if window < 1, raise.",
    ],
)


@exercise.cases
def window_cases(g):
    yield case(6, 3, label="six tokens, window 3")
    yield case(7, 3, causal=False, label="both ways")
    yield case(5, 2, label="window 2")
    yield case(1, 1, label="one token")
    yield case(4, 1, label="a window of one")
    yield case(5, 1, causal=False, label="a window of one, both ways")
    yield case(3, 10, label="a window wider than the text")
    yield case(4, 9, causal=False, label="both ways, wider than the text")
    yield case(9, 4, causal=False, label="both ways, window 4")
    yield case(1, 4, past=6, label="one new token, six in the cache")
    yield case(3, 2, past=4, label="three new tokens, four in the cache")
    yield case(4, 3, causal=False, past=2, label="both ways, two in the cache")
    yield case(integer(g, 20, 40), integer(g, 5, 15), label="a random size")
    yield case(integer(g, 5, 9), window=integer(g, 10, 15), past=integer(g, 16, 30), label="a long cache")
    yield case(integer(g, 5, 9), 2 * integer(g, 1, 3) + 1, causal=False, past=3, label="both ways, an odd window")
    yield case(integer(g, 140, 150), integer(g, 130, 138), past=integer(g, 2050, 2100), label="a very long cache")
    yield case(4, 0, label="no window at all")
    yield case(3, -integer(g, 1, 4), past=2, label="a negative window")


@exercise.oracle
def transformers_window(n, window, causal=True, past=0):
    """What Mistral sees in transformers; looking both ways, that and its mirror image."""
    if window < 1:
        return "ValueError"
    sees = borrowed("transformers.masking_utils", "sliding_window_causal_mask_function")(window)
    queries, keys = torch.arange(past, past + n)[:, None], torch.arange(past + n)
    back = sees(0, 0, queries, keys)
    return back if causal else back | sees(0, 0, keys, queries)


@exercise.probe
def answer_or_refusal(implementation, n, window, causal=True, past=0):
    """The mask, or the word "ValueError" where one is raised."""
    given = {} if causal else {"causal": False}
    try:
        return implementation(n, window, **given, **({"past": past} if past else {}))
    except ValueError:
        return "ValueError"


def _parts(one):
    names = dict(zip(("n", "window", "causal", "past"), one.args, strict=False)) | one.kwargs
    return names["n"], names["window"], names.get("causal", True), names.get("past", 0)


@exercise.law("Every token sees itself")
def window_holds_itself(out, one, call):
    n, window, _, past = _parts(one)
    return bool(out[torch.arange(n), torch.arange(past, past + n)].all()) if window > 0 else None


@exercise.law("Looking back, a full window holds `window` keys")
def window_is_full(out, one, call):
    """A token with enough before it sees `window` keys at or before its own place."""
    n, window, _, past = _parts(one)
    if window < 1:
        return None
    rows = torch.arange(past, past + n)
    back = torch.stack([row[: place + 1].sum() for row, place in zip(out, rows.tolist(), strict=True)])
    return same(back, (rows + 1).clamp(max=window))


@exercise.law("Ahead: nothing if causal, else the mirror image")
def window_looks_ahead(out, one, call):
    """Nothing ahead where it is causal; as far ahead as back where it isn't."""
    n, window, causal, past = _parts(one)
    if window < 1:
        return None
    own = out[:, past:]
    return not own.triu(1).any() if causal else same(own, own.mT)


@exercise.law("A window below 1 is a ValueError")
def window_is_refused(out, one, call):
    n, _, causal, past = _parts(one)
    return call(n, 0, causal=causal, past=past) == call(n, -2, causal=causal, past=past) == "ValueError"


@exercise.law("The mask is a bool tensor")
def window_is_bool(out, one, call):
    return isinstance(out, str) or out.dtype is torch.bool or f"the mask should be a bool tensor, and is {out.dtype}"


def _window(sees, square=False):
    """A mask that asks `sees(distance, window, causal)`; the distance is how far the key lies back."""

    def mask(n, window, causal=True, past=0):
        if window < 1:
            raise ValueError("a window holds at least the token itself")
        keys = n if square else past + n
        distance = torch.arange(keys - n, keys)[:, None] - torch.arange(keys)
        return sees(distance, window, causal)

    return mask


exercise.mistake(
    "the window doesn't count the token itself",
    hint="`window` keys in all, the query's own among them: distance 0 to window - 1.",
)(_window(lambda d, w, c: (d <= w) & (d >= (0 if c else -w))))


def _right(distance, window, causal):
    return (distance < window) & (distance >= (0 if causal else 1 - window))


exercise.mistake("the window is one key short", hint="A window of 3 holds the token and two before it.")(
    _window(lambda d, w, c: _right(d, max(w - 1, 1), c))
)

exercise.mistake("a token doesn't see itself", hint="The window begins at distance 0.")(
    _window(lambda d, w, c: (d <= w) & (d >= (0 if c else -w)) & (d != 0))
)

exercise.mistake(
    "the window lies ahead instead of behind",
    hint="Rows are queries: a key is behind where its place is smaller, so query - key is 0 or more.",
)(_window(lambda d, w, c: _right(-d, w, c)))

exercise.mistake(
    "the window looks both ways although `causal` is set", hint="With causal=True no key after the query may be seen."
)(_window(lambda d, w, c: _right(d, w, False)))

exercise.mistake(
    "`causal=False` is ignored", hint="Without causal the window reaches as far ahead as it reaches back."
)(_window(lambda d, w, c: _right(d, w, True)))

exercise.mistake(
    "with `causal=False` there is no limit ahead",
    hint="The distance counts in both directions: its absolute value is below `window`.",
)(_window(lambda d, w, c: (d < w) & ((d >= 0) | (not c))))

exercise.mistake(
    "with `causal=False` the window is shared out over both sides",
    hint="Here it reaches window - 1 tokens back and as many ahead.",
)(_window(lambda d, w, c: _right(d, w, c) if c else (2 * d.abs() <= w)))

exercise.mistake(
    "with `causal=False` the window is one key longer ahead than back", hint="A distance below `window` on either side."
)(_window(lambda d, w, c: (d < w) & (d >= (0 if c else -w))))

exercise.mistake("the mask is inverted", hint="Here True means: may attend.")(_window(lambda d, w, c: ~_right(d, w, c)))

exercise.mistake("there is no window", hint="Keys at a distance of `window` or more are hidden.")(
    _window(lambda d, w, c: (d >= 0) | (not c))
)

exercise.mistake("the near keys are hidden and the far ones seen", hint="The distance has to be *below* the window.")(
    _window(lambda d, w, c: (d >= w) if c else (d.abs() >= w))
)

exercise.mistake("the mask is made of 0 and -inf", hint="A bool tensor: True may attend.")(
    _window(lambda d, w, c: torch.zeros(d.shape).masked_fill(~_right(d, w, c), -torch.inf))
)

exercise.mistake("the mask is made of numbers", hint="A bool tensor: True may attend.")(
    _window(lambda d, w, c: _right(d, w, c).float())
)

exercise.mistake("every `window`-th key is seen", hint="That is a strided pattern. A window holds the nearest keys.")(
    _window(lambda d, w, c: (d % w == 0) & ((d >= 0) | (not c)))
)

exercise.mistake("`past` is forgotten", hint="The cache holds `past` keys before the first new one: past + n columns.")(
    _window(_right, square=True)
)

windowed = _window(_right)


@exercise.mistake("new tokens start at the left edge", hint="The first new token stands at place `past`.")
def window_upper_left(n, window, causal=True, past=0):
    return windowed(past + n, window, causal)[:n]


@exercise.mistake("there are rows for the cached tokens, too", hint="Only the n new tokens ask: n rows.")
def window_all_rows(n, window, causal=True, past=0):
    return windowed(past + n, window, causal)


@exercise.mistake(
    "everything in the cache is seen",
    hint="The window holds for cached keys, too: that is what lets you throw them away.",
)
def window_past_seen(n, window, causal=True, past=0):
    return torch.cat([torch.ones(n, past, dtype=torch.bool), windowed(n, window, causal)], -1)


@exercise.mistake("the text is cut into blocks of `window` tokens", hint="The window slides: each token has its own.")
def window_in_blocks(n, window, causal=True, past=0):
    """Chunks of `window` tokens, each for itself."""
    places = torch.arange(past + n)
    mask = places[:, None] // window == places // window
    return (mask.tril() if causal else mask)[past:]


@exercise.mistake(
    "the first token is always seen",
    hint="An attention sink is a good idea (StreamingLLM), but it isn't asked for here.",
)
def window_with_sink(n, window, causal=True, past=0):
    """StreamingLLM's variant: the first token stays visible."""
    mask = windowed(n, window, causal, past)
    mask[:, 0] = True
    return mask


@exercise.mistake("a window below 1 is accepted", hint="Then a row would be empty. Raise a ValueError.")
def window_unchecked(n, window, causal=True, past=0):
    return _right(torch.arange(past, past + n)[:, None] - torch.arange(past + n), window, causal)


@exercise.mistake("a negative window is accepted, and only 0 refused", hint="Anything below 1 is a ValueError.")
def window_zero_refused(n, window, causal=True, past=0):
    return windowed(n, window, causal, past) if window == 0 else window_unchecked(n, window, causal, past)


exercise.alternative(windowed)


@exercise.alternative
def windowed_by_triangles(n, window, causal=True, past=0):
    if window < 1:
        raise ValueError(f"window={window}: at least 1, the token itself")
    ones = torch.ones(n, past + n, dtype=torch.bool)
    return ones.tril(past if causal else past + window - 1) & ones.triu(past - window + 1)


@exercise.alternative
def windowed_by_rows(n, window, causal=True, past=0):
    if window <= 0:
        raise ValueError("no window")
    mask = torch.zeros(n, past + n, dtype=torch.bool)
    for row in range(n):
        last = past + row if causal else past + row + window - 1
        mask[row, max(0, past + row - window + 1) : last + 1] = True
    return mask

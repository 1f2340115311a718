"""`attention_pattern(kind, n_source, n_target)`

Who may see whom, in a text of n_source given tokens followed by n_target to be written.
"""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same

exercise = Draft(
    "attention_pattern",
    points=2,
    forbid=["transformers"],
    no_gradient="a mask is made of truth values",
    hints=[
        "Three of the four kinds are one square mask over source + target. Which columns may a source row see, and "
        "which a target row?",
        "Rows and columns: torch.arange(n)[:, None] and torch.arange(n). Causal is column <= row; the prefix adds "
        "column < n_source, for every row.",
        "prefix = (column <= row) | (column < n_source). An encoder-decoder gives ones [s, s], ones [t, t].tril() and "
        "ones [t, s], all bool.",
    ],
)

KINDS = ("encoder", "decoder", "prefix", "encoder-decoder")


@exercise.cases
def pattern_cases(g):
    def size(low, high):
        return int(torch.randint(low, high + 1, (), generator=g))

    for kind in KINDS:
        yield case(kind, size(2, 4), size(5, 6), label=f"{kind}, more target than source")
        yield case(kind, size(5, 6), size(2, 4), label=f"{kind}, more source than target")
        yield case(kind, 1, 1, label=f"{kind}, one token each")
    yield case("prefix", 0, size(3, 5), label="a prefix of no tokens")
    yield case("prefix", size(3, 5), 0, label="a prefix and nothing else")
    yield case("encoder-decoder", 1, 5, label="one source token")
    yield case("encoder-decoder", 5, 1, label="one target token")
    yield case("decoder", 0, size(3, 5), label="a decoder without a source")
    yield case("encoder", size(3, 5), 0, label="an encoder without a target")
    yield case("decoder", size(60, 70), size(70, 80), label="decoder, more than a hundred tokens")
    yield case("prefix", size(20, 30), size(60, 70), label="prefix, a hundred tokens")
    for kind in ("autoencoder", "Decoder", "encoder_decoder", ""):
        yield case(kind, 3, 2, label=f"an unknown kind, {kind!r}")


@exercise.oracle
def transformers_pattern(kind, n_source, n_target):
    """What transformers' mask functions say: BERT's, GPT's, PaliGemma's, and T5's three."""
    module = "transformers.masking_utils"
    everything, causal = (borrowed(module, f"{kind}_mask_function") for kind in ("bidirectional", "causal"))

    def asked(sees, rows, columns):
        answers = sees(0, 0, torch.arange(rows)[:, None], torch.arange(columns)[None])
        return answers.expand(rows, columns)

    if kind not in KINDS:
        return "ValueError"
    n = n_source + n_target
    if kind == "encoder-decoder":
        return {
            "encoder": asked(everything, n_source, n_source),
            "decoder": asked(causal, n_target, n_target),
            "cross": asked(everything, n_target, n_source),
        }
    # PaliGemma marks what belongs to the prefix with 0 and everything else with -1.
    blocks = torch.where(torch.arange(n) < n_source, 0, -1)[None]
    prefix = borrowed(module, "or_masks")(causal, borrowed(module, "blockwise_overlay")(blocks))
    return asked({"encoder": everything, "decoder": causal}.get(kind, prefix), n, n)


@exercise.probe
def pattern_or_refusal(attention_pattern, kind, n_source, n_target):
    """The mask or masks; for an unknown kind the name of the error that is raised, or that there was none."""
    known = kind in ("encoder", "decoder", "prefix", "encoder-decoder")
    try:
        made = attention_pattern(kind, n_source, n_target)
    except NotImplementedError:
        raise
    except Exception as error:
        if known:
            raise
        return "ValueError" if isinstance(error, ValueError) else type(error).__name__
    return made if known else "no error"


def _one(out, kind, n_source, n_target):
    """An encoder-decoder's three masks as one square, the others as they are."""
    if kind != "encoder-decoder":
        return out
    corner = torch.zeros(n_source, n_target, dtype=torch.bool)
    return torch.cat([torch.cat([out["encoder"], corner], 1), torch.cat([out["cross"], out["decoder"]], 1)])


def _known(one):
    return one.args[0] in KINDS


@exercise.law("In self-attention every token sees itself")
def sees_itself(out, one, call):
    return bool(_one(out, *one.args).diagonal().all()) if _known(one) else None


@exercise.law("Except in an encoder, a target sees all that stands before it, and itself")
def targets_alike(out, one, call):
    """Of all kinds but the encoder: row i of the targets ends where i stands."""
    kind, n_source, n_target = one.args
    if kind in KINDS[1:] and n_target:
        seen = _one(out, *one.args)[n_source:].long()
        ends = torch.arange(n_source, n_source + n_target)
        return bool((seen == (torch.arange(n_source + n_target) <= ends[:, None])).all())
    return None


@exercise.law("Only in an encoder does the source see the targets")
def source_is_closed(out, one, call):
    kind, n_source, _ = one.args
    if not _known(one):
        return None
    seen = _one(out, *one.args)[:n_source, n_source:]
    return bool((seen if kind == "encoder" else ~seen.bool()).all())


@exercise.law("The three masks of an encoder-decoder, put together, are the prefix pattern")
def three_make_one(out, one, call):
    if one.args[0] != "encoder-decoder":
        return None
    return same(_one(out, *one.args), call("prefix", *one.args[1:]))


@exercise.law("Masks are bool tensors")
def masks_are_bool(out, one, call):
    if not _known(one):
        return None
    masks = out.values() if isinstance(out, dict) else [out]
    return all(mask.dtype is torch.bool for mask in masks) or "a mask isn't a bool tensor"


@exercise.law("An unknown kind is a ValueError")
def unknown_is_refused(out, one, call):
    return None if _known(one) else out == "ValueError"


def _ones(rows, columns):
    return torch.ones(rows, columns, dtype=torch.bool)


def _causal(n):
    return _ones(n, n).tril()


def _prefix(s, t):
    column = torch.arange(s + t)
    return (column <= column[:, None]) | (column < s)


def _three(s, t):
    return {"encoder": _ones(s, s), "decoder": _causal(t), "cross": _ones(t, s)}


_RIGHT = {
    "encoder": lambda s, t: _ones(s + t, s + t),
    "decoder": lambda s, t: _causal(s + t),
    "prefix": _prefix,
    "encoder-decoder": _three,
}


def _with(change=lambda mask: mask, unknown=None, **kinds):
    """`attention_pattern` with some kinds exchanged, and every mask changed."""
    makers = _RIGHT | {name.replace("_", "-"): make for name, make in kinds.items()}

    def attention_pattern(kind, n_source, n_target):
        if kind not in makers and unknown is None:
            raise ValueError(kind)
        made = makers.get(kind, unknown)(n_source, n_target)
        return {name: change(mask) for name, mask in made.items()} if isinstance(made, dict) else change(made)

    return attention_pattern


def _half(**changed):
    return lambda s, t: _three(s, t) | {name: make(s, t) for name, make in changed.items()}


def _blocks(upper, lower_left, lower_right):
    """A prefix pattern from its four corners; the upper two come as one."""
    return lambda s, t: torch.cat([upper(s, t), torch.cat([lower_left(t, s), lower_right(t)], 1)])


def _no(rows, columns):
    return ~_ones(rows, columns)


def _closed(s, t):
    return torch.cat([_ones(s, s), _no(s, t)], 1)


exercise.mistake(
    "a token sees only what stands before it, and not itself",
    hint="Up to and including itself: tril() keeps the diagonal. Else the first row sees nothing at all.",
)(
    _with(
        decoder=lambda s, t: _ones(s + t, s + t).tril(-1),
        prefix=_blocks(_closed, _ones, lambda t: _ones(t, t).tril(-1)),
        encoder_decoder=_half(decoder=lambda s, t: _ones(t, t).tril(-1)),
    )
)

exercise.mistake(
    "rows and columns are swapped", hint="Rows ask, columns are asked: pattern[i, j] says whether token i sees token j."
)(_with(lambda mask: mask.T))

exercise.mistake("True hides", hint="Here True means: may see.")(_with(lambda mask: ~mask))

exercise.mistake("the masks are made of 0 and -inf", hint="A bool tensor: True may see.")(
    _with(lambda mask: torch.zeros(mask.shape).masked_fill(~mask, -math.inf))
)

exercise.mistake("the masks are made of numbers", hint="A bool tensor: True may see.")(_with(lambda mask: mask.long()))

exercise.mistake(
    "the prefix is treated like the rest, causally",
    hint="Inside the prefix everybody sees everybody: it is given, so there is nothing to hide.",
)(_with(prefix=_RIGHT["decoder"]))

exercise.mistake(
    "the prefix sees the targets",
    hint="Source rows see source columns only. Otherwise the answer leaks into the question.",
)(_with(prefix=_blocks(lambda s, t: _ones(s, s + t), _ones, _causal)))

exercise.mistake(
    "in a prefix pattern the targets see each other in both directions",
    hint="The targets are still written one by one: causal among themselves.",
)(_with(prefix=_blocks(_closed, _ones, lambda t: _ones(t, t))))

exercise.mistake(
    "in a prefix pattern the targets see the source only", hint="A target sees the targets before it, too, and itself."
)(_with(prefix=_blocks(_closed, _ones, lambda t: _no(t, t))))

exercise.mistake(
    "in a prefix pattern source and targets don't see each other",
    hint="Targets see the whole source: that is what they answer.",
)(_with(prefix=_blocks(_closed, _no, _causal)))

exercise.mistake("the encoder is causal", hint="An encoder sees everything, both ways.")(
    _with(encoder=_RIGHT["decoder"])
)

exercise.mistake(
    "a decoder is given the prefix pattern",
    hint="A decoder knows no prefix: all of its text is causal, source and target alike.",
)(_with(decoder=_prefix))

exercise.mistake(
    "the decoder's pattern has the targets alone",
    hint="A decoder-only model reads source and target as one text of n_source + n_target tokens.",
)(_with(decoder=lambda s, t: _causal(t)))

exercise.mistake(
    "the cross-attention is causal",
    hint="The whole source is there before the first target is written: every target sees all of it.",
)(_with(encoder_decoder=_half(cross=lambda s, t: _ones(t, s).tril())))

exercise.mistake(
    "the cross-attention has a row for each source token",
    hint="The targets ask (rows), the source answers (columns): [n_target, n_source].",
)(_with(encoder_decoder=_half(cross=lambda s, t: _ones(s, t))))

exercise.mistake(
    "the decoder half of an encoder-decoder sees its future",
    hint="Its self-attention is causal, as in a decoder-only model.",
)(_with(encoder_decoder=_half(decoder=lambda s, t: _ones(t, t))))

exercise.mistake(
    "the encoder half of an encoder-decoder is causal",
    hint="The encoder half is an encoder: the source sees all of the source.",
)(_with(encoder_decoder=_half(encoder=lambda s, t: _causal(s))))

exercise.mistake(
    "an encoder-decoder gives one mask instead of three",
    hint="It has three attentions: a dict with the keys 'encoder', 'decoder' and 'cross'.",
)(_with(encoder_decoder=_prefix))

exercise.mistake(
    "an unknown kind is taken for a decoder",
    hint="A typing mistake should not train a model for a week: raise a ValueError.",
)(_with(unknown=_RIGHT["decoder"]))


def _off(by):
    """The prefix ends `by` tokens too late."""
    return lambda s, t: _prefix(s, t) if s + by < 0 else _causal(s + t) | (torch.arange(s + t) < s + by)


exercise.mistake("the prefix is one token too long", hint="Given are the columns below n_source, not up to it.")(
    _with(prefix=_off(1))
)

exercise.mistake("the prefix is one token too short", hint="Given are all columns below n_source.")(
    _with(prefix=_off(-1))
)

exercise.mistake(
    "a token sees the next one as well", hint="Up to and including itself: tril() without a diagonal of 1."
)(
    _with(
        decoder=lambda s, t: _ones(s + t, s + t).tril(1),
        prefix=lambda s, t: _prefix(s, t) | _ones(s + t, s + t).tril(1),
        encoder_decoder=_half(decoder=lambda s, t: _ones(t, t).tril(1)),
    )
)

exercise.mistake("n_source and n_target are exchanged", hint="The source comes first, in rows and in columns.")(
    lambda kind, n_source, n_target: _with()(kind, n_target, n_source)
)

exercise.mistake("the three masks come as a tuple", hint="A dict, with the keys 'encoder', 'decoder' and 'cross'.")(
    _with(encoder_decoder=lambda s, t: tuple(_three(s, t).values()))
)


@exercise.mistake("an unknown kind is a KeyError", hint="Ask first whether the kind is one of the four: ValueError.")
def pattern_by_lookup(kind, n_source, n_target):
    return _RIGHT[kind](n_source, n_target)


exercise.mistake(
    "kinds that are spelt otherwise are taken as well",
    hint="Compare the whole text, as it is: 'Decoder' is unknown, and so is 'encoder_decoder'.",
)(lambda kind, *sizes: _with()(kind.lower().replace("_", "-"), *sizes))

exercise.alternative(_with())


@exercise.alternative
def pattern_by_loops(kind, n_source, n_target):
    def grid(rows, columns, sees):
        return torch.tensor([[sees(i, j) for j in range(columns)] for i in range(rows)], dtype=torch.bool).reshape(
            rows, columns
        )

    def anything(i, j):
        return True

    def back(i, j):
        return j <= i

    n = n_source + n_target
    match kind:
        case "encoder":
            return grid(n, n, anything)
        case "decoder":
            return grid(n, n, back)
        case "prefix":
            return grid(n, n, lambda i, j: j <= max(i, n_source - 1))
        case "encoder-decoder":
            return {
                "cross": grid(n_target, n_source, anything),
                "decoder": grid(n_target, n_target, back),
                "encoder": grid(n_source, n_source, anything),
            }
    raise ValueError(f"unknown kind {kind!r}")


class _Unknown(ValueError):
    """One of the same family."""


@exercise.alternative
def pattern_by_blocks(kind, n_source, n_target):
    """The square is cut out of larger ones, and filled in place."""
    if kind not in KINDS:
        raise _Unknown
    n = n_source + n_target
    square = torch.full((n, n), kind == "encoder")
    square |= torch.triu(torch.ones(n, n)).t() > 0
    if kind == "prefix":
        square[:, :n_source] = True
    if kind != "encoder-decoder":
        return square
    cross = torch.full((n_target, n_source), True)
    return {"encoder": torch.full((n_source, n_source), True), "cross": cross, "decoder": square[n_source:, n_source:]}

"""`scale_rope(kind, factor, d, trained_length, base=10000.0)`

The pairs' speeds for a context `factor` times as long, and the attention factor.
"""

from __future__ import annotations

import math

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.transformer.rope.shared import BASE, config_of, option, speeds

exercise = Draft(
    "scale_rope",
    points=4,
    forbid=["transformers"],
    atol=1e-9,
    no_gradient="the speeds are fixed before any training",
    hints=[
        "Start with plain = base ** (-torch.arange(0, d, 2) / d). Linear: plain / factor. NTK: the same formula with a "
        "larger base.",
        "YaRN mixes plain / factor and plain with a ramp in [0, 1]: 0 up to pair `low`, 1 from pair `high` on. "
        "pair(turns) = d * ln(trained_length / (2 pi turns)) / (2 ln base) tells which pair makes that many turns.",
        "low = max(floor(pair(32)), 0), high = min(ceil(pair(1)), d - 1); ramp = (i - low) / (high - low), in [0, 1]; "
        "speeds = plain / factor * ramp + plain * (1 - ramp), attention factor 0.1 * math.log(factor) + 1.",
    ],
)


@exercise.cases
def scaling_cases(g):
    def factor(low, high):
        return low + (high - low) * float(torch.rand(1, generator=g))

    for kind in ("linear", "ntk", "yarn"):
        yield case(kind, factor(2, 4), 64, 2_048, label=f"{kind}: LLaMA's head, trained on 2,048")
        yield case(kind, factor(4, 9), 16, 512, base=500_000.0, label=f"{kind}: another base, by keyword")
        yield case(kind, factor(8, 32), 128, 8_192, 1_000_000.0, label=f"{kind}: a wide head, a large factor")
    yield case("ntk", 2, 4, 64, label="ntk: two pairs, a whole factor")
    yield case("yarn", factor(2, 4), 32, 100_000, label="yarn: trained so long that every pair has gone round")
    yield case("yarn", factor(2, 4), 32, 64, label="yarn: trained on 64 tokens only")
    yield case("yarn", factor(2, 4), 16, 1_000, base=10.0, label="yarn: the ramp's upper end is cut off")
    yield case("yarn", factor(2, 4), 4, 10_000, base=10.0, label="yarn: both ends of the ramp are the same")


@exercise.oracle
def hf_scaling(kind, factor, d, trained_length, base=BASE):
    functions = borrowed("transformers.modeling_rope_utils", "ROPE_INIT_FUNCTIONS")
    if kind == "ntk":
        # transformers has the dynamic form only; with factor 1 at factor * trained_length it is the fixed form.
        config = config_of(d, trained_length, rope_type="dynamic", rope_theta=base, factor=1.0)
        return functions["dynamic"](config, seq_len=factor * trained_length)
    config = config_of(
        d,
        trained_length,
        rope_type=kind,
        rope_theta=base,
        factor=factor,
        **({"original_max_position_embeddings": trained_length} if kind == "yarn" else {}),
    )
    return functions[kind](config)


def _close(got, expected):
    return same(torch.as_tensor(got).double(), torch.as_tensor(expected).double(), atol=1e-9)


def _plain_speeds(d, base):
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def _scaled(out, one):
    """The kind, the factor, the plain speeds, and the new ones in float64."""
    kind, factor, d = one.args[:3]
    base = option(one, "base", 4, BASE)
    return kind, factor, _plain_speeds(d, base), out[0].double()


@exercise.law("Factor 1 changes nothing")
def neutral_factor(out, one, call):
    kind, _, plain, _ = _scaled(out, one)
    speeds, attention = call(kind, 1.0, *one.args[2:], **one.kwargs)
    return _close(speeds, plain) and _close(attention, 1.0)


@exercise.law("NTK and YaRN leave the fastest pair alone")
def fastest_kept(out, one, call):
    kind, _, plain, new = _scaled(out, one)
    return None if kind == "linear" else _close(new[0], plain[0])


@exercise.law("A pair that never went round in training is slowed by exactly the factor")
def slowest_slowed(out, one, call):
    kind, factor, plain, new = _scaled(out, one)
    if kind == "yarn" and one.args[3] * plain[-1] > 2 * math.pi:
        return None  # even the slowest pair has gone round in training
    return _close(new[-1], plain[-1] / factor)


@exercise.law("No pair gets faster, and none is slowed by more than the factor")
def within(out, one, call):
    _, factor, plain, new = _scaled(out, one)
    return bool(((new <= plain * 1.0001) & (new >= plain / factor * 0.9999)).all())


@exercise.law("Only YaRN sharpens attention")
def attention_factor(out, one, call):
    kind, factor = one.args[:2]
    return float(out[1]) > 1 if kind == "yarn" else float(out[1]) == 1


def _linear(factor, d, length, base):
    return speeds(d, base) / factor, 1.0


def _ntk(factor, d, length, base):
    return speeds(d, base * factor ** (d / (d - 2))), 1.0


def _pair_with(turns, d, length, base):
    return d * math.log(length / (2 * math.pi * turns)) / (2 * math.log(base))


def _by_pair(d, length, base, pair=_pair_with):
    low = max(math.floor(pair(32, d, length, base)), 0)
    high = min(math.ceil(pair(1, d, length, base)), d - 1)
    return ((torch.arange(d // 2) - low) / (max(high - low, 0.001))).clamp(0, 1)


def _softness(factor):
    return 0.1 * math.log(factor) + 1


def _yarn_with(ramp=_by_pair, attention=_softness):
    """YaRN from its parts: how much of each pair is interpolated, and the attention factor."""

    def yarn(factor, d, length, base):
        share = ramp(d, length, base)
        return speeds(d, base) * (share / factor + 1 - share), attention(factor)

    return yarn


_yarn = _yarn_with()


def _scaling(linear=_linear, ntk=_ntk, yarn=_yarn):
    """`scale_rope` from its three kinds."""

    def scale_rope(kind, factor, d, trained_length, base=BASE):
        return {"linear": linear, "ntk": ntk, "yarn": yarn}[kind](factor, d, trained_length, base)

    return scale_rope


exercise.mistake(
    "linear scaling multiplies the speeds instead of dividing them",
    hint="Position 4,000 should look like 2,000 did: clocks go slower, not faster.",
)(_scaling(linear=lambda s, d, length, base: (speeds(d, base) * s, 1.0)))

exercise.mistake(
    "the NTK base is multiplied by the plain factor",
    hint="The power d/(d-2) makes the slowest pair come out at exactly 1/factor.",
)(_scaling(ntk=lambda s, d, length, base: (speeds(d, base * s), 1.0)))

exercise.mistake(
    "the NTK power is (d-2)/d instead of d/(d-2)",
    hint="Solve for it: new_base ** (-(d-2)/d) should be base ** (-(d-2)/d) / factor.",
)(_scaling(ntk=lambda s, d, length, base: (speeds(d, base * s ** ((d - 2) / d)), 1.0)))

exercise.mistake(
    "YaRN's ramp is reversed: the fast pairs are interpolated, the slow ones kept",
    hint="Fast pairs went round often in training: they know every angle. Slow ones need interpolation.",
)(_scaling(yarn=_yarn_with(lambda *shape: 1 - _by_pair(*shape))))

exercise.mistake(
    "YaRN interpolates every pair, without a ramp", hint="That is linear scaling. Mix both speeds, pair by pair."
)(_scaling(yarn=_yarn_with(lambda d, length, base: torch.ones(d // 2))))

exercise.mistake(
    "YaRN's attention factor is left at 1",
    hint="YaRN has a second half: 0.1 ln(factor) + 1, with which cosines and sines are multiplied.",
)(_scaling(yarn=_yarn_with(attention=lambda s: 1.0)))

exercise.mistake(
    "YaRN's attention factor is the temperature t itself",
    hint="The paper gives sqrt(1/t) = 0.1 ln(factor) + 1. Return that root.",
)(_scaling(yarn=_yarn_with(attention=lambda s: _softness(s) ** -2)))

exercise.mistake("YaRN's attention factor uses the logarithm to base 10", hint="math.log is the natural logarithm.")(
    _scaling(yarn=_yarn_with(attention=lambda s: 0.1 * math.log10(s) + 1))
)


def _by_pair_unrounded(d, length, base):
    low, high = max(_pair_with(32, d, length, base), 0), min(_pair_with(1, d, length, base), d - 1)
    return ((torch.arange(d // 2) - low) / (high - low)).clamp(0, 1)


exercise.mistake(
    "the ramp's ends aren't rounded", hint="floor the low end, ceil the high end, as the released code does."
)(_scaling(yarn=_yarn_with(_by_pair_unrounded)))


def _by_pair_with(low, high):
    """The ramp with other roundings of its ends: `low(pair)` and `high(pair, d)`."""

    def ramp(d, length, base):
        start, end = low(_pair_with(32, d, length, base)), high(_pair_with(1, d, length, base), d)
        return ((torch.arange(d // 2) - start) / max(end - start, 0.001)).clamp(0, 1)

    return ramp


exercise.mistake("the ramp's ends are rounded to the nearest number", hint="floor the low end, ceil the high end.")(
    _scaling(yarn=_yarn_with(_by_pair_with(lambda pair: max(round(pair), 0), lambda pair, d: min(round(pair), d - 1))))
)

exercise.mistake("the ramp's low end is rounded up and its high end down", hint="The ramp reaches outwards.")(
    _scaling(
        yarn=_yarn_with(
            _by_pair_with(lambda pair: max(math.ceil(pair), 0), lambda pair, d: min(math.floor(pair), d - 1))
        )
    )
)

exercise.mistake("the ramp's low end may be negative", hint="max(floor(pair(32)), 0): pairs count from 0.")(
    _scaling(yarn=_yarn_with(_by_pair_with(math.floor, lambda pair, d: min(math.ceil(pair), d - 1))))
)

exercise.mistake("the ramp's high end isn't cut off at d - 1", hint="min(ceil(pair(1)), d - 1).")(
    _scaling(yarn=_yarn_with(_by_pair_with(lambda pair: max(math.floor(pair), 0), lambda pair, d: math.ceil(pair))))
)


def _yarn_of_wavelengths(factor, d, length, base):
    share = _by_pair(d, length, base)
    return speeds(d, base) / (share * factor + 1 - share), _softness(factor)


exercise.mistake("YaRN mixes wavelengths instead of speeds", hint="ramp * plain / factor + (1 - ramp) * plain.")(
    _scaling(yarn=_yarn_of_wavelengths)
)

exercise.mistake("YaRN's attention factor is ln(factor) + 1", hint="0.1 * ln(factor) + 1.")(
    _scaling(yarn=_yarn_with(attention=lambda s: math.log(s) + 1))
)


def _by_turns(d, length, base):
    turns = length * speeds(d, base) / (2 * math.pi)
    return 1 - ((turns - 1) / 31).clamp(0, 1)


exercise.mistake(
    "the ramp runs over the number of turns, as in the paper's text, not over the pair's number",
    hint="The released code, which trained models use, ramps linearly in i between low and high.",
)(_scaling(yarn=_yarn_with(_by_turns)))

exercise.mistake(
    "the ramp's ends lack the 2 pi", hint="One turn is 2 pi radians: turns = trained_length * speed / (2 pi)."
)(
    _scaling(
        yarn=_yarn_with(lambda *shape: _by_pair(*shape, pair=lambda t, *rest: _pair_with(t / (2 * math.pi), *rest)))
    )
)

exercise.mistake(
    "the ramp's ends are computed from the new length instead of the trained one",
    hint="What matters is how often a pair went round in training.",
)(_scaling(yarn=lambda s, d, length, base: _yarn(s, d, s * length, base)))

scaling = _scaling()


@exercise.mistake("the base is always 10,000, whatever is passed", hint="`base` enters the speeds and the ramp.")
def scaling_base_ignored(kind, factor, d, trained_length, base=BASE):
    return scaling(kind, factor, d, trained_length)


exercise.alternative(scaling)


@exercise.alternative
def scaling_by_loop(kind, factor, d, trained_length, base=BASE):
    """One pair after the other in plain Python floats, and the wavelengths rather than the speeds."""
    if kind == "ntk":
        base, factor = base * factor ** (d / (d - 2)), 1.0
    wavelengths = [2 * math.pi * base ** (2 * i / d) for i in range(d // 2)]
    attention = 1.0
    if kind == "yarn":
        attention = 1 + math.log(factor) / 10
        ramp = _by_pair(d, trained_length, base).tolist()
    else:
        ramp = [1.0] * (d // 2)
    mixed = [2 * math.pi / w * (r / factor + (1 - r)) for w, r in zip(wavelengths, ramp, strict=True)]
    return torch.tensor(mixed, dtype=torch.float64), torch.tensor(attention)

"""`init_std(shape, scheme, slope=0.0)`: The standard deviation with which a weight is drawn."""

from __future__ import annotations

import math

import torch
from torch import nn

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.gradients.shared import fans, right_std, std
from autograde.exercises.shared import integer, only

exercise = Draft(
    "init_std",
    points=3,
    forbid=["torch.nn.init"],
    no_gradient="a number that follows from a shape",
    rtol=1e-5,  # a slope of 0.01 is seen
    atol=1e-6,
    hints=[
        "How many numbers are added up to make one output? That many variances add up. And how many outputs does one "
        "input reach, when the gradient comes back?",
        "field = math.prod(shape[2:]); fan_in = shape[1] * field; fan_out = shape[0] * field.",
        "xavier: (2 / (fan_in + fan_out)) ** 0.5. he: (2 / ((1 + slope**2) * fan_in)) ** 0.5. First raise ValueError "
        "if len(shape) < 2 or scheme not in ('xavier', 'he').",
    ],
)


@exercise.cases
def std_cases(g):
    yield case((4, 3), "xavier", label="xavier, a small matrix")
    yield case((4, 3), "he", label="he, a small matrix")
    yield case((integer(g, 40, 90), integer(g, 5, 30)), "he", label="he, more outputs than inputs")
    yield case((integer(g, 5, 30), integer(g, 40, 90)), "xavier", label="xavier, fewer outputs than inputs")
    yield case((8, 3, 5, 5), "he", label="he, a 5 × 5 convolution")
    yield case((8, 3, 5, 2), "xavier", label="xavier, a 5 × 2 convolution")
    yield case((4, integer(g, 5, 9), 3), "he", label="he, a convolution over text")
    yield case((integer(g, 9, 14), 6, 1, 1), "xavier", label="xavier, a 1 × 1 convolution")
    yield case((1, 1), "he", label="he, a single number")
    yield case([12, 7], "he", 0.2, label="he, a leaky slope of 0.2")
    yield case((6, 9, 3), "he", 1.0, label="he, slope 1: no ReLU at all")
    yield case(torch.Size((10, 4)), "he", slope=2.5, label="he, a slope above 1")
    yield case((7, 5), "xavier", 0.5, label="xavier, with a slope")
    yield case((integer(g, 3, 20),), "he", label="a bias")
    yield case((9, 2), "normal", label="a scheme that there isn't")
    yield case((9, 2), "He", label="a scheme that is spelt otherwise")
    yield case((9, 2), "kaiming", label="he's first name")
    yield case((9, 2), "he_normal", label="a scheme with one in it")
    yield case((9, 2), "xavier_normal", label="a scheme that begins like one")
    yield case((), "he", label="a single number's shape")
    yield case((8, 6), "he", -0.7, label="he, a slope below 0")
    yield case((5, 4, 2, 3, 2), "he", 0.3, label="he, three dimensions of kernel, a slope of 0.3")
    yield case((300, 700), "xavier", label="xavier, a large matrix")


@exercise.oracle
def torch_std(shape, scheme, slope=0.0):
    """Read off torch's own draws: from one random state they are a standard normal draw times the wanted number."""
    if len(shape) < 2 or scheme not in ("xavier", "he"):
        return "ValueError"
    weight, standard = torch.empty(2, *shape, dtype=torch.float64)
    nn.init.normal_(standard, generator=torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(0)
    if scheme == "xavier":
        nn.init.xavier_normal_(weight, generator=source)
    else:
        nn.init.kaiming_normal_(weight, a=slope, generator=source)
    return float(weight.norm() / standard.norm())


@exercise.probe
def answer_or_refusal(implementation, shape, scheme, *given, **slope):
    """The standard deviation, or the word "ValueError" where one is raised."""
    try:
        return implementation(shape, scheme, *given, **slope)
    except ValueError:
        return "ValueError"


@exercise.law("xavier serves both directions, he the inputs")
@only("xavier, a small matrix", "he, a small matrix")
def std_direction(out, one, call):
    """Xavier takes the middle of both directions; he looks at what comes in."""
    o, i, *kernel = 11, 5, 2
    if abs(call((o, i, *kernel), "xavier") - call((i, o, *kernel), "xavier")) > 1e-6:
        return "xavier is for both directions: a layer and its mirror image get the same"
    return same(call((o, i, *kernel), "he"), call((3 * o, i, *kernel), "he")) or "he asks for the inputs alone"


@exercise.law("A kernel of k places counts k times")
@only("xavier, a small matrix", "he, a small matrix")
def std_kernel(out, one, call):
    """A kernel of k places: each output hears k times as many numbers."""
    return all(same(call((7, 4, 3, 3), kind), call((7 * 9, 4 * 9), kind)) for kind in ("xavier", "he"))


@exercise.law("The slope tells he how much the ReLU lets through")
@only("xavier, a small matrix", "he, a small matrix")
def std_slope(out, one, call):
    """he with slope 1 is a linear layer, twice the variance a ReLU; xavier has no slope."""
    ratio = call((6, 5), "he") / call((6, 5), "he", 1.0)
    return same(ratio, 2**0.5, rtol=1e-3) and same(call((6, 5), "xavier", 0.7), call((6, 5), "xavier"))


@exercise.law("A bias or an unknown scheme is a ValueError")
@only("xavier, a small matrix", "he, a small matrix")
def std_refuses(out, one, call):
    return all(call(*wrong) == "ValueError" for wrong in (((5,), "xavier"), ((), "he"), ((4, 4), "lecun")))


exercise.mistake(
    "fan-in and fan-out are swapped", hint="torch stores a weight as [outputs, inputs, …]: the inputs are dimension 1."
)(std(fans=lambda shape: fans(shape)[::-1]))


def _fans_without_kernel(shape):
    return shape[1], shape[0]


exercise.mistake(
    "a convolution's kernel isn't counted",
    hint="An output of a 3 × 3 convolution hears 9 places of every channel: multiply.",
)(std(fans=_fans_without_kernel))


def _fans_with_kernel_coming_in(shape):
    return shape[1] * math.prod(shape[2:]), shape[0]


exercise.mistake(
    "the kernel is counted in the fan-in alone",
    hint="Each input speaks to that many places of every output channel, too: both fans have it.",
)(std(fans=_fans_with_kernel_coming_in))


def _fans_with_kernel_width(shape):
    width = shape[2] if len(shape) > 2 else 1
    return shape[1] * width, shape[0] * width


exercise.mistake("the kernel's width is counted and not its height", hint="Multiply all dimensions after the second.")(
    std(fans=_fans_with_kernel_width)
)


def _fans_from_the_ends(shape):
    return shape[-1], shape[0]


exercise.mistake(
    "the last dimension is taken for the inputs",
    hint="Right for a matrix. A convolution's weight is [out, in, height, width].",
)(std(fans=_fans_from_the_ends))

exercise.mistake("the variance is returned", hint="The standard deviation is its root.")(
    std(end=lambda variance: variance)
)

exercise.mistake(
    "the bound of a uniform distribution is returned",
    hint="That bound is sqrt(3) times the standard deviation. Asked for is the standard deviation.",
)(std(end=lambda variance: math.sqrt(3 * variance)))

exercise.mistake(
    "xavier looks at the inputs alone",
    hint="1 / fan_in is LeCun's. Glorot and Bengio take the mean of fan-in and fan-out.",
)(std(xavier=lambda i, o: 1 / i))

exercise.mistake("xavier's 2 is missing", hint="1 over the *mean* of both fans is 2 / (fan_in + fan_out).")(
    std(xavier=lambda i, o: 1 / (i + o))
)

exercise.mistake("xavier takes the geometric mean of the fans", hint="The ordinary mean: (fan_in + fan_out) / 2.")(
    std(xavier=lambda i, o: 1 / math.sqrt(i * o))
)

exercise.mistake(
    "he's 2 is missing", hint="A ReLU lets half of the variance through: the weights make up for it with a factor of 2."
)(std(he=lambda i, o, slope: 1 / ((1 + slope**2) * i)))

exercise.mistake("he takes the mean of the fans", hint="fan_in alone; xavier takes the mean.")(
    std(he=lambda i, o, slope: 4 / ((1 + slope**2) * (i + o)))
)

exercise.mistake("the slope is ignored", hint="A leaky ReLU lets (1 + slope²) / 2 of the variance through.")(
    std(he=lambda i, o, slope: 2 / i)
)

exercise.mistake("the slope isn't squared", hint="Variances go with squares: 1 + slope².")(
    std(he=lambda i, o, slope: 2 / ((1 + slope) * i))
)

exercise.mistake(
    "1 + slope is squared, not the slope",
    hint="Half of the numbers keep their square, half get slope² of it: 1 + slope².",
)(std(he=lambda i, o, slope: 2 / ((1 + slope) ** 2 * i)))


@exercise.mistake(
    "xavier has the slope in it, too",
    hint="xavier is made for an activation with slope 1 on both sides: the slope is for he alone.",
)
def std_slope_everywhere(shape, scheme, slope=0.0):
    std = right_std(shape, scheme, slope)
    return std if scheme == "he" else std / math.sqrt(1 + slope**2)


def _fans_of_a_bias(shape):
    return fans(shape) if len(shape) > 1 else (shape[0] if shape else 1,) * 2


exercise.mistake(
    "a bias gets a standard deviation as well",
    hint="A shape of fewer than two dimensions has no fan-in: raise ValueError.",
)(std(fans=_fans_of_a_bias, refuse_bias=False))

exercise.mistake(
    "every unknown scheme is taken for he",
    hint="A typing error in a name would be hard to find later: raise ValueError.",
)(std(refuse_scheme=False))


@exercise.mistake("schemes that are spelt otherwise are taken as well", hint="'He' is unknown: compare the whole text.")
def std_of_any_spelling(shape, scheme, slope=0.0):
    return right_std(shape, scheme.lower(), slope)


@exercise.mistake("the schemes' other names are taken as well", hint="'kaiming' is unknown here: ValueError.")
def std_of_other_names(shape, scheme, slope=0.0):
    known = {"kaiming": "he", "glorot": "xavier"}
    return right_std(shape, known.get(scheme, scheme), slope)


@exercise.mistake("the slope is 0.01 if nobody says otherwise", hint="The default is 0: the ordinary ReLU.")
def std_of_leaky(shape, scheme, slope=0.01):
    return right_std(shape, scheme, slope)


@exercise.mistake("an unknown scheme is a KeyError", hint="Ask first whether the scheme is one of the two: ValueError.")
def std_by_lookup(shape, scheme, slope=0.0):
    return right_std(shape, {"xavier": "xavier", "he": "he"}[scheme], slope)


@exercise.mistake("a shape of no dimension is an IndexError", hint="Ask for len(shape) < 2 before you look into it.")
def std_looks_first(shape, scheme, slope=0.0):
    return right_std(shape, scheme, slope) if shape[0] else 0.0


exercise.alternative(right_std)


@exercise.alternative
def std_by_tensors(shape, scheme, slope=0.0):
    if len(shape) < 2 or scheme not in {"he", "xavier"}:
        raise ValueError("no such weight")
    fake = torch.empty(shape, device="meta")
    fan_in, fan_out = fake[0].numel(), fake[:, 0].numel()
    parts = {"he": torch.tensor(0.5 * fan_in * (1 + slope * slope)), "xavier": torch.tensor((fan_in + fan_out) / 2)}
    return parts[scheme].rsqrt()

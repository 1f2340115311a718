"""`adam_with_decay(weight, gradients, lr=0.001, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-08)`

Run Adam over a list of gradients, with either kind of decay.
"""

from __future__ import annotations

import math

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import only, randn

exercise = Draft(
    "adam_with_decay",
    points=4,
    forbid=["torch.optim"],
    dtypes=[torch.float64],
    no_gradient="an optimizer's steps are taken without a graph",
    hints=[
        "One loop over the gradients, with m and v starting at zero. The two kinds differ in one line.",
        "L2: g = g + weight_decay * w, before m and v. Decoupled: w = w - lr * weight_decay * w, and g stays.",
        "m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g; with t from 1: "
        "w = w - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps).",
    ],
)


@exercise.cases
def adam_cases(g):
    def some(steps, *shape, scale=1.0, **options):
        return case(randn(g, *shape), randn(g, steps, *shape) * scale, **options)

    yield some(5, 4, 3, lr=0.1, weight_decay=0.2, label="decoupled decay")
    yield some(5, 4, 3, lr=0.1, weight_decay=0.2, decoupled=False, label="L2 in the loss")
    yield some(1, 6, lr=0.05, weight_decay=0.5, label="one step")
    yield some(3, 5, label="the defaults, without decay")
    yield some(4, 5, scale=1e-7, lr=0.5, label="tiny gradients, a large rate, the defaults for all else")
    yield some(4, 1, lr=0.2, weight_decay=0.3, decoupled=False, label="a single weight, L2")
    yield some(6, 2, 3, lr=0.1, weight_decay=0.1, betas=(0.5, 0.9), label="betas=(0.5, 0.9)")
    yield some(4, 3, scale=1e-4, lr=0.1, weight_decay=0.1, eps=1e-3, label="tiny gradients, eps=1e-3")
    yield some(3, 2, 2, scale=100.0, lr=0.1, weight_decay=0.4, decoupled=False, label="large gradients, L2")
    yield some(3, lr=0.3, weight_decay=0.2, label="a weight without dimensions")
    yield some(60, 3, lr=0.02, weight_decay=0.3, betas=(0.8, 0.95), label="sixty steps")
    gradients = randn(g, 4, 5)
    gradients[:, [0, 3]] = 0.0
    yield case(randn(g, 5), gradients, lr=0.1, weight_decay=0.1, label="two entries never have a gradient")


@exercise.oracle
def torch_adam(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    """The functions in torch's Adam and AdamW. Their classes import torch._dynamo, a second's work, when first made."""
    from torch.optim.adam import adam
    from torch.optim.adamw import adamw

    w, mean, square, step = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight), torch.tensor(0.0)
    update = adamw if decoupled else adam
    rates = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}
    for gradient in gradients:
        state = [w], [gradient], [mean], [square], [], [step]
        update(*state, foreach=False, amsgrad=False, maximize=False, **rates)
    return w


@exercise.law("Without gradients, decoupled decay shrinks by 1 - lr * weight_decay a step")
def shrinks_by_itself(out, one, call):
    weight = one.args[0]
    still = torch.zeros(3, *weight.shape)
    return same(call(weight, still, lr=0.1, weight_decay=0.5, decoupled=True), weight * 0.95**3)


@exercise.law("Gradients fifty times as large make the same steps")
def size_of_gradients(out, one, call):
    """Adam's steps don't depend on the gradients' scale."""
    weight, gradients = one.args
    small, large = (call(weight, gradients * scale, lr=0.1, eps=1e-12) for scale in (1.0, 50.0))
    return same(small, large, rtol=1e-3, atol=1e-3)


@exercise.law("Large gradients protect a weight from L2, and not from decoupled decay")
@only("decoupled decay")
def l2_is_adapted(out, one, call):
    """With L2 in the loss a weight shrinks less where its gradients are large; with decoupled decay it does not."""
    weight, gradients = torch.ones(2), torch.tensor([[1.0, 100.0], [-1.0, -100.0]] * 3)

    def shrinkage(decoupled):
        options = {"lr": 0.01, "decoupled": decoupled}
        return call(weight, gradients, **options) - call(weight, gradients, weight_decay=0.5, **options)

    apart = shrinkage(True)
    return same(apart[0], apart[1], rtol=1e-3, atol=1e-4) and shrinkage(False)[0] > 5 * shrinkage(False)[1].abs()


exercise.law("The result has the dtype of the weight")(keeps_dtype)


def adam(
    decoupled_as=lambda decoupled: decoupled,
    decay=lambda w, lr, wd: w - lr * wd * w,
    corrections=(True, True),
    with_eps=lambda v, correction, eps: (v / correction).sqrt() + eps,
    l2=lambda w, g, wd: g + wd * w,
    square=lambda g: g * g,
    late=0,
):
    """`adam_with_decay` from its parts."""

    def adam_with_decay(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
        w, m, v = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
        for t, g in enumerate(gradients, start=1):
            if decoupled_as(decoupled):
                w = decay(w, lr, weight_decay)
            else:
                g = l2(w, g, weight_decay)
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * square(g)
            m_hat = m / (1 - betas[0] ** (t + late)) if corrections[0] else m
            correction = 1 - betas[1] ** (t + late) if corrections[1] else 1.0
            w = w - lr * m_hat / with_eps(v, correction, eps)
        return w

    return adam_with_decay


exercise.mistake(
    "the decay is always decoupled, whatever is asked for",
    hint="With decoupled=False weight_decay * w is added to the gradient, before the moments.",
)(adam(decoupled_as=lambda decoupled: True))

exercise.mistake(
    "the decay is always added to the gradient, as L2",
    hint="With decoupled=True the moments never see the decay: w shrinks by lr * weight_decay * w beside them.",
)(adam(decoupled_as=lambda decoupled: False))

exercise.mistake("the two kinds are swapped", hint="decoupled=True is AdamW.")(
    adam(decoupled_as=lambda decoupled: not decoupled)
)


@exercise.mistake("there is no decay", hint="weight_decay has to enter in either kind.")
def adam_without_decay(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    return adam()(weight, gradients, lr, 0.0, decoupled, betas, eps)


exercise.mistake(
    "the decoupled decay isn't multiplied by the learning rate",
    hint="In torch's AdamW w shrinks by lr * weight_decay * w.",
)(adam(decay=lambda w, lr, wd: w - wd * w))

exercise.mistake(
    "the moments aren't corrected for starting at zero",
    hint="Divide m by 1 - beta1 ** t and v by 1 - beta2 ** t, with t = 1 in the first step.",
)(adam(corrections=(False, False)))

exercise.mistake("only the second moment is corrected", hint="m needs its correction, too.")(
    adam(corrections=(False, True))
)

exercise.mistake("only the first moment is corrected", hint="v needs its correction, too.")(
    adam(corrections=(True, False))
)


@exercise.mistake(
    "the step isn't divided by the root of the second moment",
    hint="m alone is SGD with momentum. Adam divides it by sqrt(v) + eps.",
)
def adam_without_second_moment(
    weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8
):
    w, m = weight, torch.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        w, g = (w - lr * weight_decay * w, g) if decoupled else (w, g + weight_decay * w)
        m = betas[0] * m + (1 - betas[0]) * g
        w = w - lr * m / (1 - betas[0] ** t)
    return w


exercise.mistake("the corrections count the steps from 2", hint="t is 1 in the first step.")(adam(late=1))

exercise.mistake("the second moment averages sizes instead of squares", hint="v = beta2 * v + (1 - beta2) * g².")(
    adam(square=lambda g: g.abs())
)


@exercise.mistake("the betas are swapped", hint="beta1, the first of the two, is that of m; beta2 is that of v.")
def adam_betas_swapped(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    return adam()(weight, gradients, lr, weight_decay, decoupled, betas[::-1], eps)


@exercise.mistake("decoupled decay comes after the step of Adam", hint="First the decay, of the weight as it was.")
def adam_decays_afterwards(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    if not decoupled:
        return adam()(weight, gradients, lr, weight_decay, False, betas, eps)
    w, shrink = weight, 1 - lr * weight_decay
    for t in range(1, len(gradients) + 1):  # of t steps without decay the last one
        last = adam()(torch.zeros_like(w), gradients[:t], lr, 0.0, True, betas, eps)
        before = adam()(torch.zeros_like(w), gradients[: t - 1], lr, 0.0, True, betas, eps)
        w = (w + last - before) * shrink
    return w


@exercise.mistake("only the last gradient counts", hint="A step for each gradient, in order.")
def adam_takes_one_step(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    return adam()(weight, gradients[-1:], lr, weight_decay, decoupled, betas, eps)


exercise.mistake("eps isn't used", hint="Where a gradient has always been 0, 0 / 0 would be NaN.")(
    lambda weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8: adam()(
        weight, gradients, lr, weight_decay, decoupled, betas, 0.0
    )
)


@exercise.mistake("the result is float32, whatever the weight is", hint="The moments have the weight's dtype.")
def adam_in_float32(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    return adam()(weight.float(), gradients.float(), lr, weight_decay, decoupled, betas, eps)


@exercise.mistake("weight_decay is 0.01 if nobody says otherwise", hint="That is torch's AdamW's. Here it is 0.")
def adam_decays(weight, gradients, lr=1e-3, weight_decay=0.01, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    return adam()(weight, gradients, lr, weight_decay, decoupled, betas, eps)


exercise.mistake("eps is added inside the root", hint="sqrt(v) + eps: outside, in Adam.")(
    adam(with_eps=lambda v, correction, eps: (v / correction + eps).sqrt())
)

exercise.mistake(
    "eps is added before the second moment is corrected",
    hint="sqrt(v / (1 - beta2**t)) + eps. (The paper's faster version has another eps.)",
)(adam(with_eps=lambda v, correction, eps: (v.sqrt() + eps) / correction**0.5))


@exercise.mistake("the L2 term reaches the first moment only", hint="g itself changes, before both moments see it.")
def adam_l2_in_first_moment(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    if decoupled:
        return adam()(weight, gradients, lr, weight_decay, True, betas, eps)
    w, m, v = weight, torch.zeros_like(weight), torch.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * (g + weight_decay * w)
        v = betas[1] * v + (1 - betas[1]) * g * g
        w = w - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return w


exercise.mistake(
    "the L2 term is subtracted from the gradient",
    hint="The gradient of weight_decay / 2 * w ** 2 is + weight_decay * w.",
)(adam(l2=lambda w, g, wd: g - wd * w))

exercise.mistake(
    "the L2 term is 2 * weight_decay * w",
    hint="By convention the penalty is weight_decay / 2 * w ** 2, so the factor 2 is gone.",
)(adam(l2=lambda w, g, wd: g + 2 * wd * w))


@exercise.alternative
def adam_by_scale(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    (b1, b2), w = betas, weight.double()
    m = v = torch.zeros_like(w)
    for t in range(1, len(gradients) + 1):
        g = gradients[t - 1].double() + (0 if decoupled else weight_decay) * w
        m, v = torch.lerp(g, m, b1), torch.lerp(g.square(), v, b2)
        step = (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + eps)
        w = w * (1 - lr * weight_decay * decoupled) - lr * step
    return w.to(weight.dtype)


@exercise.alternative
def adam_in_place_on_copies(weight, gradients, lr=1e-3, weight_decay=0.0, decoupled=True, betas=(0.9, 0.999), eps=1e-8):
    w, m, v = weight.detach().clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for t, gradient in enumerate(gradients.unbind(0)):
        g = gradient.clone() if decoupled else torch.add(gradient, w, alpha=weight_decay)
        if decoupled:
            w.mul_(1 - lr * weight_decay)
        m.mul_(betas[0]).add_(g, alpha=1 - betas[0])
        v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        size = (v.sqrt() / math.sqrt(1 - betas[1] ** (t + 1))).add_(eps)
        w.addcdiv_(m, size, value=-lr / (1 - betas[0] ** (t + 1)))
    return w

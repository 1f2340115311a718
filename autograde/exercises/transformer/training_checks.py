"""What SwiGLU and the schedule of 01_transformer/07_training_recipe are judged by: oracles, cases and laws."""

from __future__ import annotations

import torch

from autograde.exercise import case, same


def _randn(g, *shape):
    return torch.randn(*shape, generator=g)


def _int(g, low, high):
    """A random whole number from low to high - 1."""
    return int(torch.randint(low, high, (), generator=g))


# ---- swiglu ---------------------------------------------------------------------------------------------------------

def llama_mlp(x, w_gate, w_up, w_down):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    hidden, d = w_gate.shape
    with torch.no_grad():
        # The config insists on attention heads that fit, though an MLP has none.
        config = LlamaConfig(hidden_size=d, intermediate_size=hidden, num_attention_heads=1, head_dim=2)
        mlp = LlamaMLP(config).to(x.dtype)
        for layer, weight in ((mlp.gate_proj, w_gate), (mlp.up_proj, w_up), (mlp.down_proj, w_down)):
            layer.weight.copy_(weight)
        return mlp(x)


def swiglu_cases(g):
    def some(*shape, hidden, scale=1.0):
        d = shape[-1]
        return _randn(g, *shape) * scale, _randn(g, hidden, d), _randn(g, hidden, d), _randn(g, d, hidden)

    yield case(*some(2, 3, 4, hidden=6), label="a batch")
    yield case(*some(5, hidden=3), label="a single vector, narrower inside than outside")
    yield case(*some(3, 4, hidden=4), label="square matrices")
    yield case(*some(2, 1, 3, 2, hidden=5), label="two batch dimensions")
    yield case(*some(4, 3, hidden=8, scale=30.0), label="large values")
    yield case(*some(1, 1, hidden=1), label="one number, one hidden unit")
    yield case(-_randn(g, 3, 2).abs() * 20, _randn(g, 4, 2).abs(), _randn(g, 4, 2), _randn(g, 2, 4),
               label="gates far below zero")
    yield case(torch.zeros(2, 3), *some(3, hidden=4)[1:], label="x is zero")
    yield case(*(part.double() for part in some(2, 3, hidden=5)), label="float64")
    wide = some(4, 3, hidden=6)
    yield case(wide[0].T.contiguous().T, *(w.T.contiguous().T for w in wide[1:]), label="not contiguous")


def linear_in_up(out, one, call):
    x, w_gate, w_up, w_down = one.args
    return same(call(x, w_gate, -3 * w_up, w_down), -3 * out, rtol=1e-3, atol=1e-3)


def open_gate_is_the_identity(out, one, call):
    """With scores far above zero SiLU hands its input on, with scores far below it gives nothing."""
    x, d = torch.full((1, 2), 60.0, dtype=one.args[0].dtype), torch.eye(2, dtype=one.args[0].dtype)
    return same(call(x, d, d, d), x * x) and same(call(-x, d, d, d), 0 * x)


# ---- warmup_cosine_lr -----------------------------------------------------------------------------------------------

def rates(rate, steps, *args, **options):
    """The rate at each of the steps."""
    return [float(rate(step, *args, **options)) for step in steps]


def hf_rates(steps, peak, warmup, total, floor=0.0):
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, total, min_lr=floor)
    # Past `total` the library's cosine would rise again.
    return [peak * schedule.lr_lambdas[0](min(step, total)) for step in steps]


def rate_cases(g):
    yield case(list(range(24)), 1.0, 5, 20, label="every step, and a few more than planned")
    yield case(list(range(14)), 3e-2, 0, 10, label="no warm-up")
    yield case([0, 1, 2, 5, 40, 41, 99, 100, 101, 500], 0.5, 40, 100, floor=0.05, label="with a floor")
    yield case([0, 1, 2, 3, 4, 5, 6, 7], 2.0, 1, 6, label="one step of warm-up")
    yield case([0, 1, 2], 0.1, 0, 1, floor=0.01, label="one step in all")
    yield case([0, 1, 2, 3, 4, 5], 0.7, 3, 4, label="one step of decay")
    yield case([5, 17, 33], 10.0, 12, 30, floor=10.0, label="the floor is the peak")
    peak, warmup = _int(g, 2, 9) / 10, _int(g, 3, 9)
    total = warmup + _int(g, 5, 20)
    yield case(list(range(total + 3)), peak, warmup, total, floor=peak / 8, label="a random plan")


def hits_the_marks(out, one, call):
    """The peak at the end of the warm-up, half way between peak and floor in the middle, the floor at the end."""
    _, peak, warmup, total = one.args
    floor = one.kwargs.get("floor", 0.0)
    marks = [warmup, total] + ([(warmup + total) // 2] if (warmup + total) % 2 == 0 else [])
    return same(call(marks, peak, warmup, total, floor=floor), [peak, floor, (peak + floor) / 2][: len(marks)],
                atol=1e-7)


def warmup_is_a_line(out, one, call):
    _, peak, warmup, total = one.args
    if not warmup:
        return None
    found = call(list(range(warmup + 1)), peak, warmup, total, floor=one.kwargs.get("floor", 0.0))
    return same(found, [peak * step / warmup for step in range(warmup + 1)], atol=1e-7)


def never_rises_again(out, one, call):
    _, peak, warmup, total = one.args
    steps = list(range(warmup, 3 * total + 2))
    found = call(steps, peak, warmup, total, floor=one.kwargs.get("floor", 0.0))
    return all(later <= earlier + 1e-9 for earlier, later in zip(found, found[1:], strict=False))


def grows_with_the_peak(out, one, call):
    steps, peak, warmup, total = one.args
    floor = one.kwargs.get("floor", 0.0)
    if not any(out):
        return None
    return same(call(steps, 2 * peak, warmup, total, floor=2 * floor), [2 * rate for rate in out], atol=1e-7)

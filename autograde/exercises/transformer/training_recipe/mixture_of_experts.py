"""`mixture_of_experts(x, router, w_gate, w_up, w_down, k)`

A layer of gated experts of which each token visits k, and the loss for an even load.
"""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, same
from autograde.exercises.shared import only, randn

MIXTRAL = "transformers.models.mixtral.modeling_mixtral"
OPEN = 0.02  # how far the k-th score lies above the next, so that rounding can't choose another expert

exercise = Draft(
    "mixture_of_experts",
    points=4,
    forbid=["transformers"],
    dtypes=[torch.float64],
    rtol=1e-3,
    atol=1e-4,
    hints=[
        "First the router alone: softmax over the experts, the k largest and which they are (topk gives both), divided "
        "by their sum. Flatten all leading dimensions to tokens before.",
        "Then expert by expert: which tokens have it among their k, and at which of the k places? Only these rows go "
        "through its three matrices, and what comes out is added to their rows of the result, times their gate.",
        "token, place = (chosen == e).nonzero(as_tuple=True); out = out.index_add(0, token, gates[token, place, None] "
        "* expert(rows[token])). Balance: E * (share * probabilities.mean(0)).sum(), share = counts / tokens.",
    ],
)


def _layer(g, lead, d, h, experts, k, scale=1.0):
    """Tokens whose choice of k experts is clear, and the matrices of a layer."""
    router, count = randn(g, experts, d), 1
    for size in lead:
        count *= size
    found = []
    while len(found) < count:
        x = scale * randn(g, d)
        scores = (router @ x).sort(descending=True).values
        if k == experts or scores[k - 1] - scores[k] > OPEN:
            found.append(x)
    up = randn(g, experts, h, d), randn(g, experts, h, d)
    return torch.stack(found).reshape(*lead, d), router, *up, randn(g, experts, d, h), k


@exercise.cases
def expert_cases(g):
    yield case(*_layer(g, (7,), 4, 3, 5, 2), label="seven tokens, two of five experts")
    yield case(*_layer(g, (2, 5), 3, 4, 4, 2), label="a batch")
    yield case(*_layer(g, (6,), 4, 2, 6, 3), label="three of six")
    yield case(*_layer(g, (5,), 3, 5, 4, 1), label="one of four: the gate is 1")
    yield case(*_layer(g, (4,), 3, 2, 3, 3), label="all three of three")
    yield case(*_layer(g, (1,), 5, 3, 8, 2), label="one token: most experts have none")
    yield case(*_layer(g, (3,), 2, 1, 1, 1), label="one expert")
    yield case(*_layer(g, (2, 1, 3), 4, 3, 4, 2), label="two leading dimensions")
    yield case(*_layer(g, (4, 2), 3, 3, 3, 2, scale=8.0), label="large values, a router that is sure")
    crowd = _layer(g, (9,), 4, 3, 6, 2)
    yield case(crowd[0][:1] + 0.01 * randn(g, 9, 4), *crowd[1:], label="all tokens want the same experts")
    yield case(*_layer(g, (70,), 4, 5, 9, 2), label="many tokens")


@exercise.oracle
def mixtral(x, router, w_gate, w_up, w_down, k, ask=None):
    """Mixtral's own router, experts and balance loss."""
    rows = x.reshape(-1, x.shape[-1])
    asked = types.SimpleNamespace(weight=router, top_k=k, hidden_dim=x.shape[-1])
    logits, gates, chosen = borrowed(MIXTRAL, "MixtralTopKRouter").forward(asked, rows)
    experts = types.SimpleNamespace(
        gate_up_proj=torch.cat([w_gate, w_up], 1), down_proj=w_down, num_experts=len(router), act_fn=F.silu
    )
    out = borrowed(MIXTRAL, "MixtralExperts").forward.__wrapped__(experts, rows, chosen, gates.to(x.dtype))
    balance = borrowed(MIXTRAL, "load_balancing_loss_func")((logits,), len(router), k)
    return out.reshape(x.shape), balance.to(x.dtype)


@exercise.probe
def layered(implementation, x, router, w_gate, w_up, w_down, k, ask=None):
    """Result and balance; or, if that is asked for, "work": operations of all products of matrices, as a number, or
    "lessons": whether a gradient reaches the router from each of the two, as a list of two booleans."""
    import torch

    if ask is None:
        return implementation(x, router, w_gate, w_up, w_down, k)
    if ask == "work":
        from labkit.flops import Flops

        with Flops() as counter:
            implementation(x, router, w_gate, w_up, w_down, k)
        return counter.get_total_flops()
    router = router.clone().requires_grad_()
    out, balance = implementation(x, router, w_gate, w_up, w_down, k)
    heard = []
    for each in (out.square().sum(), balance):
        found = (
            torch.autograd.grad(each, router, retain_graph=True, allow_unused=True) if each.requires_grad else [None]
        )
        heard.append(found[0] is not None and bool(found[0].abs().max() > 0))
    return heard


@exercise.law("Each token is computed by its k experts alone", essential=True)
@only("seven tokens, two of five experts")
def no_idle_work(out, one, call):
    """Operations for 32 tokens, two of eight experts each."""
    g = torch.Generator().manual_seed(0)
    given = _layer(g, (32,), 8, 16, 8, 2)
    needed = 2 * 32 * 8 * (8 + 3 * 2 * 16)
    took = call(*given, ask="work")
    return took <= 1.3 * needed or f"{needed:,} operations are enough for 32 tokens, and there were {took:,}"


@exercise.law("The router learns from the result and from the balance")
def both_teach(out, one, call):
    if one.label != "seven tokens, two of five experts":
        return None
    heard = dict(zip(("result", "balance"), call(*one.args, ask="lessons"), strict=True))
    silent = [name for name, heard_from in heard.items() if not heard_from]
    if len(silent) == 2:  # cut off altogether: that is for the law about gradients to say
        return None
    return not silent or f"no gradient reaches it from the {silent[0]}"


@exercise.law("An expert that nobody chose doesn't matter")
def idle_is_unread(out, one, call):
    """Another expert takes part whose scores are far below all others: new matrices in it change nothing."""
    x, router, w_gate, w_up, w_down, k = one.args
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)  # a feature that is always one, for the new expert's score
    router = F.pad(router, (0, 1, 0, 1))
    router[-1, -1] = -1e4
    w_gate, w_up = (F.pad(w, (0, 1, 0, 0, 0, 1)) for w in (w_gate, w_up))
    w_down = F.pad(w_down, (0, 0, 0, 1, 0, 1))
    w_gate[-1], w_up[-1], w_down[-1] = torch.inf, torch.inf, torch.inf
    given, _ = call(x, router, w_gate, w_up, w_down, k)
    return same(given[..., :-1], out[0], rtol=1e-3, atol=1e-3)


@exercise.law("The experts' names don't matter")
def numbering_is_free(out, one, call):
    x, *matrices, k = one.args
    return same(call(x, *(m.flip(0) for m in matrices), k), out, rtol=1e-3, atol=1e-3)


@exercise.law("Each token is answered as if it were alone")
def tokens_are_alone(out, one, call):
    x, *matrices, k = one.args
    return same(call(x[..., -1:, :], *matrices, k)[0], out[0][..., -1:, :], rtol=1e-3, atol=1e-3)


@exercise.law("Both results have the dtype of x")
def both_keep_dtype(out, one, call):
    other = next((each.dtype for each in out if each.dtype != one.args[0].dtype), None)
    return other is None or f"{one.args[0].dtype} went in, {other} came out"


def _pick(logits, k):
    """Gates [tokens, k], chosen experts [tokens, k] and probabilities [tokens, experts]."""
    probabilities = logits.softmax(-1)
    gates, chosen = probabilities.topk(k, -1)
    return gates / gates.sum(-1, keepdim=True), chosen, probabilities


def _expert(rows, e, w_gate, w_up, w_down):
    return (F.silu(rows @ w_gate[e].T) * (rows @ w_up[e].T)) @ w_down[e].T


def _expert_by_expert(add):
    """What all tokens' experts say together: `add(out, token, rows, gate, expert)` gives `out` with one expert more."""

    def mix(rows, gates, chosen, *weights):
        out = torch.zeros_like(rows)
        for e in range(len(weights[0])):
            token, place = (chosen == e).nonzero(as_tuple=True)
            gate = gates[token, place, None]
            out = add(out, token, rows[token], gate, lambda given, e=e: _expert(given, e, *weights))
        return out

    return mix


_mix = _expert_by_expert(lambda out, token, rows, gate, expert: out.index_add(0, token, gate * expert(rows)))


def _load(chosen, probabilities):
    experts = probabilities.shape[-1]
    return torch.bincount(chosen.flatten(), minlength=experts) / len(chosen)


def _balance(chosen, probabilities):
    return probabilities.shape[-1] * (_load(chosen, probabilities) * probabilities.mean(0)).sum()


def _moe(pick=_pick, mix=_mix, balance=_balance):
    """A layer with one screw turned: each option's default is right."""

    def layer(x, router, w_gate, w_up, w_down, k):
        rows = x.reshape(-1, x.shape[-1])
        gates, chosen, probabilities = pick(rows @ router.T, k)
        out = mix(rows, gates, chosen, w_gate, w_up, w_down)
        return out.reshape(x.shape), balance(chosen, probabilities).to(x.dtype)

    return layer


def _dense(rows, gates, chosen, *weights):
    every = torch.stack([_expert(rows, e, *weights) for e in range(len(weights[0]))], 1)
    return every, torch.zeros_like(every[..., 0]).scatter(1, chosen, gates)


@exercise.mistake(
    "every expert computes every token, and what isn't wanted is multiplied by 0",
    hint="The values are right, but it is all the work of all experts: hand each expert its own tokens only.",
)
def all_compute(x, router, w_gate, w_up, w_down, k):
    def mix(rows, gates, chosen, *weights):
        every, share = _dense(rows, gates, chosen, *weights)
        return torch.where(share[..., None] > 0, every, 0.0).mul(share[..., None]).sum(1)

    return _moe(mix=mix)(x, router, w_gate, w_up, w_down, k)


def _picked(change):
    """Gates that are made otherwise from the k largest probabilities."""

    def pick(logits, k):
        probabilities = logits.softmax(-1)
        gates, chosen = probabilities.topk(k, -1)
        return change(gates), chosen, probabilities

    return pick


exercise.mistake("the k gates aren't divided by their sum", hint="The gates of a token add up to 1 again.")(
    _moe(_picked(lambda gates: gates))
)

exercise.mistake(
    "a second softmax is taken over the k probabilities",
    hint="Divide by the sum. (A softmax over the k *logits* would give the same; one over probabilities doesn't.)",
)(_moe(_picked(lambda gates: gates.softmax(-1))))

exercise.mistake("the k experts count alike", hint="Each answer is weighted by its gate.")(
    _moe(_picked(lambda gates: torch.full_like(gates, 1.0) / gates.shape[-1]))
)

exercise.mistake("the k answers are added without gates", hint="Each answer is weighted by its gate.")(
    _moe(_picked(torch.ones_like))
)

exercise.mistake(
    "no gradient reaches the router through the result", hint="The gates are what the router learns by: don't detach."
)(_moe(_picked(lambda gates: (gates / gates.sum(-1, keepdim=True)).detach())))


def _chosen_by(choose):
    def pick(logits, k):
        probabilities = logits.softmax(-1)
        chosen = choose(probabilities, k)
        gates = probabilities.gather(-1, chosen)
        return gates / gates.sum(-1, keepdim=True), chosen, probabilities

    return pick


exercise.mistake("the k least likely experts are asked", hint="topk takes the largest: don't turn the sign.")(
    _moe(_chosen_by(lambda p, k: p.topk(k, -1, largest=False).indices))
)

exercise.mistake("only the likeliest expert is asked", hint="Each token visits k experts.")(
    _moe(_chosen_by(lambda p, k: p.topk(1, -1).indices))
)

exercise.mistake("always two experts are asked", hint="k is a parameter.")(
    _moe(_chosen_by(lambda p, k: p.topk(min(2, p.shape[-1]), -1).indices))
)

exercise.mistake("all experts are mixed, whatever k is", hint="Only the k likeliest of each token.")(
    _moe(_chosen_by(lambda p, k: p.topk(p.shape[-1], -1).indices))
)

exercise.mistake("all tokens visit the experts of the first token", hint="Each token chooses for itself.")(
    _moe(_chosen_by(lambda p, k: p[:1].topk(k, -1).indices.expand(len(p), -1)))
)

exercise.mistake("the softmax runs over the tokens", hint="Over the experts, for each token: dim=-1.")(
    _moe(lambda logits, k: _without_softmax(logits.softmax(0), k))
)

exercise.mistake(
    "sigmoids take the place of the softmax", hint="That is DeepSeek-V3's router. Here the experts compete: a softmax."
)(_moe(lambda logits, k: _without_softmax(logits.sigmoid(), k)))


def _without_softmax(scores, k):
    gates, chosen = scores.topk(k, -1)
    return gates / gates.sum(-1, keepdim=True), chosen, scores


@exercise.mistake(
    "the gate multiplies what goes into the expert", hint="An expert isn't linear: the gate weights its *answer*."
)
def gate_on_the_input(x, router, w_gate, w_up, w_down, k):
    def step(out, token, rows, gate, expert):
        return out.index_add(0, token, expert(gate * rows))

    return _moe(mix=_expert_by_expert(step))(x, router, w_gate, w_up, w_down, k)


@exercise.mistake(
    "the answers come back in the experts' order, not in the tokens'",
    hint="Rows were gathered expert by expert: each answer has to find back to its own token (index_add).",
)
def not_scattered_back(x, router, w_gate, w_up, w_down, k):
    def mix(rows, gates, chosen, *weights):
        order = chosen.flatten().argsort(stable=True)
        each = [
            gates.flatten()[i] * _expert(rows[i // gates.shape[1]], int(chosen.flatten()[i]), *weights) for i in order
        ]
        return torch.stack(each).unflatten(0, (-1, gates.shape[1])).sum(1)

    return _moe(mix=mix)(x, router, w_gate, w_up, w_down, k)


@exercise.mistake(
    "a token's later expert overwrites what the earlier one said", hint="The k answers are added: index_add, or +=."
)
def overwritten(x, router, w_gate, w_up, w_down, k):
    def step(out, token, rows, gate, expert):
        return out.index_put((token,), gate * expert(rows))

    return _moe(mix=_expert_by_expert(step))(x, router, w_gate, w_up, w_down, k)


exercise.mistake("gate and up matrices are swapped", hint="silu(w_gate x) * (w_up x): the gate gets the SiLU.")(
    lambda x, router, w_gate, w_up, w_down, k: _moe()(x, router, w_up, w_gate, w_down, k)
)


@exercise.mistake("the experts' gate is a GELU", hint="Each expert is a SwiGLU: silu(s) = s * sigmoid(s).")
def gelu_experts(x, router, w_gate, w_up, w_down, k):
    def mix(rows, gates, chosen, *weights):
        every = [(F.gelu(rows @ g.T) * (rows @ u.T)) @ d.T for g, u, d in zip(*weights, strict=True)]
        return torch.einsum("tk,tkd->td", gates, torch.stack(every, 1)[torch.arange(len(rows))[:, None], chosen])

    return _moe(mix=mix)(x, router, w_gate, w_up, w_down, k)


@exercise.mistake("x is added to the result", hint="The residual is added outside of this function.")
def with_residual(x, *given):
    out, balance = _moe()(x, *given)
    return x + out, balance


@exercise.mistake(
    "an expert takes no more than its even share of tokens, and the rest is dropped",
    hint="No capacity here: every token is answered by all k of its experts.",
)
def capped(x, router, w_gate, w_up, w_down, k):
    def mix(rows, gates, chosen, *weights):
        room = -(-chosen.numel() // len(router))
        order = F.one_hot(chosen.flatten(), len(router)).cumsum(0).gather(1, chosen.flatten()[:, None])
        return _mix(rows, torch.where(order.view_as(chosen) <= room, gates, 0.0), chosen, *weights)

    return _moe(mix=mix)(x, router, w_gate, w_up, w_down, k)


exercise.mistake(
    "the router's scores are divided by sqrt(d)", hint="A router is no attention: router[e] · x as it is."
)(lambda x, router, *given: _moe()(x, router / x.shape[-1] ** 0.5, *given))

for says, hint, formula in (
    (
        "the balance isn't multiplied by the number of experts",
        "With E in front an even load gives k, however many experts there are.",
        lambda chosen, p: (_load(chosen, p) * p.mean(0)).sum(),
    ),
    (
        "the balance counts shares of all choices instead of shares of tokens",
        "f_e: of all tokens, how many have e among their k? These shares add up to k, not to 1.",
        lambda chosen, p: _balance(chosen, p) / chosen.shape[1],
    ),
    (
        "the balance is the sum of squared shares",
        "Counting has no gradient. One of the two factors is the mean probability.",
        lambda chosen, p: p.shape[-1] * _load(chosen, p).square().sum() + 0 * p.sum(),
    ),
    (
        "the balance is the sum of squared mean probabilities",
        "One of the two factors is counted: the share of tokens that have e among their k.",
        lambda chosen, p: p.shape[-1] * p.mean(0).square().sum(),
    ),
    (
        "the balance counts first choices only",
        "A token loads all k of its experts.",
        lambda chosen, p: _balance(chosen[:, :1], p),
    ),
    (
        "an expert's probability counts only at the tokens that chose it",
        "P_e is a mean over *all* tokens, also those that went elsewhere.",
        lambda chosen, p: _balance(chosen, torch.zeros_like(p).scatter(1, chosen, p.gather(1, chosen))),
    ),
    (
        "the balance is a mean over the experts instead of E times the sum",
        "It is E times the *sum* over the experts.",
        lambda chosen, p: _balance(chosen, p) / p.shape[-1] ** 2,
    ),
    (
        "k is subtracted from the balance",
        "An even load gives k, not 0: nothing is subtracted.",
        lambda chosen, p: _balance(chosen, p) - chosen.shape[1],
    ),
    (
        "the balance is weighted already",
        "The weight of the balance loss is for whoever trains to choose.",
        lambda chosen, p: 0.01 * _balance(chosen, p),
    ),
    (
        "the balance has no gradient",
        "It is a loss: through the mean probabilities it teaches the router.",
        lambda chosen, p: _balance(chosen, p.detach()),
    ),
    (
        "the probabilities are summed over the tokens, not averaged",
        "P_e is a mean: twice the tokens must not be twice the loss.",
        lambda chosen, p: _balance(chosen, p) * len(p),
    ),
):
    exercise.mistake(says, hint=hint)(_moe(balance=formula))


@exercise.mistake(
    "the balance is taken for each sequence and then averaged", hint="All tokens of all leading dimensions count alike."
)
def balance_by_sequence(x, router, w_gate, w_up, w_down, k):
    out, balance = _moe()(x, router, w_gate, w_up, w_down, k)
    if x.dim() < 3:
        return out, balance
    each = [_moe()(part, router, w_gate, w_up, w_down, k)[1] for part in x.flatten(0, -3)]
    return out, torch.stack(each).mean()


exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: both results have the dtype of x."
)(
    lambda x, router, w_gate, w_up, w_down, k: _moe()(
        x.float(), router.float(), w_gate.float(), w_up.float(), w_down.float(), k
    )
)


exercise.alternative(_moe())


@exercise.alternative
def sorted_by_expert(x, router, w_gate, w_up, w_down, k):
    """Copies of tokens in the experts' order, cut into runs, and back; gates from the logits of the chosen."""
    rows = x.reshape(-1, x.shape[-1])
    logits = F.linear(rows, router)
    top, chosen = logits.topk(k, -1)
    order = chosen.flatten().argsort()
    counts = torch.bincount(chosen.flatten(), minlength=len(router))
    runs = rows[order // k].split(counts.tolist())
    said = torch.cat([_expert(run, e, w_gate, w_up, w_down) for e, run in enumerate(runs)])
    each = torch.zeros_like(said).index_copy(0, order, said).unflatten(0, (-1, k))
    out = torch.einsum("tk,tkd->td", top.softmax(-1), each)
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True) if logits.max() < 50 else logits.softmax(-1)
    hot = F.one_hot(chosen, len(router)).sum(1).to(x.dtype)
    return out.reshape(x.shape), len(router) * torch.dot(hot.mean(0), probabilities.mean(0))


@exercise.alternative
def by_gathered_weights(x, router, w_gate, w_up, w_down, k):
    """Each token fetches the matrices of its experts: the same work, more memory."""
    rows = x.reshape(-1, x.shape[-1])
    probabilities = torch.softmax(rows @ router.T, -1)
    chosen = probabilities.argsort(-1, descending=True)[:, :k]
    gates = probabilities.take_along_dim(chosen, -1)
    gate, up = (torch.einsum("td,tkhd->tkh", rows, w[chosen]) for w in (w_gate, w_up))
    said = torch.einsum("tkh,tkdh->tkd", gate * gate.sigmoid() * up, w_down[chosen])
    out = (said * (gates / gates.sum(-1, keepdim=True))[..., None]).sum(1)
    share = torch.stack([(chosen == e).any(-1).to(x.dtype).mean() for e in range(len(router))])
    return out.reshape(x.shape), (share @ probabilities.mean(0)) * len(router)

"""`expert_parallel(x, chosen, gates, experts, capacity, apply, exchange)`

A mixture of experts whose experts live on different ranks: tokens travel to them and come back.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from autograde.exercise import Draft, PerRank, case
from autograde.exercises.data_parallel.shared import agree_by_entry, place
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "expert_parallel",
    points=4,
    ranks=True,
    limit=4.0,
    dtypes=[torch.float64],
    strides=False,
    hints=[
        "Three permutations: which copies of tokens are kept, in which order they leave, and how they get back to "
        "their places. Everybody must first know how many rows come from whom, for which of his experts.",
        "Flat copies in the order (token, slot); a copy is kept if fewer than `capacity` before it want the same "
        "expert. Sort the kept ones by expert: then they lie grouped by rank. dist.all_to_all_single of the counts "
        "for each expert tells the others.",
        "order = kept[flat[kept].argsort(stable=True)]; counts = torch.bincount(flat[order], minlength=experts); "
        "rows = exchange(x[order // k], ...); sort what came by expert, apply, put it back into the order in which it "
        "came, exchange with the counts swapped; x.new_zeros(x.shape).index_add(0, order // k, back * gates).",
    ],
)


@exercise.cases
def routed(g):
    def some(world, rows, label, mine=2, k=1, capacity=99, chosen=None):
        d = pick(g, 3, 5)
        experts = world * mine
        x, gates = randn(g, world, max(rows), d), torch.rand(world, max(rows), k, generator=g) + 0.1
        if chosen is None:
            scores = torch.rand(world, max(rows), experts, generator=g)
            chosen = scores.argsort(-1)[..., :k].contiguous()
        weights = randn(g, experts, d, d)
        return case(x, chosen, gates, weights, rows, capacity, ranks=world, label=label)

    yield some(2, [5, 3], "two ranks, two experts a token", k=2)
    full = torch.tensor([[[0, 1]] * 2 + [[1, 3]] * 3 + [[2, 0]], [[1, 2]] * 4 + [[3, 1]] + [[0, 1]]])
    yield some(2, [6, 5], "two ranks, experts that are full", k=2, capacity=3, chosen=full)
    yield some(3, [4, 1, 6], "three ranks, one expert on each", mine=1)
    yield some(3, [3, 5, 4], "three ranks, nobody wants the last one's", k=2, chosen=_skewed(g, 3, 5))
    yield some(4, [3, 6, 2, 5], "four ranks, three experts a token, full", k=3, capacity=2)


def _skewed(g, world, rows):
    return torch.rand(world, rows, 4, generator=g).argsort(-1)[..., :2].contiguous()


@exercise.probe
def on_rank(expert_parallel, x, chosen, gates, weights, rows, capacity):
    """One forward and one backward pass; each rank can reach its own experts alone."""
    import torch
    import torch.distributed as dist

    from labkit.scaling import exchange

    rank, n, calls = dist.get_rank(), dist.get_world_size(), []
    mine = len(weights) // n
    held = weights[rank * mine : (rank + 1) * mine].clone().requires_grad_()
    own = x[rank, : rows[rank]].clone().requires_grad_()
    opened = gates[rank, : rows[rank]].clone().requires_grad_()

    def apply(expert, tokens):
        if not 0 <= int(expert) - rank * mine < mine:
            raise IndexError(f"expert {int(expert)} doesn't live on rank {rank}")
        calls.append((int(expert), len(tokens)))
        return torch.tanh(tokens @ held[int(expert) - rank * mine])

    out = expert_parallel(own, chosen[rank, : rows[rank]].clone(), opened, len(weights), capacity, apply, exchange)
    told = {"output": out.detach(), "calls": sorted(calls)}
    pull = torch.linspace(-1.0, 2.0, own.numel(), dtype=own.dtype).reshape(own.shape)
    if out.requires_grad:
        (out * pull).sum().backward()
    zero = torch.zeros_like
    for name, leaf in (("x", own), ("gates", opened), ("experts", held)):
        told[f"gradient of {name}"] = zero(leaf) if leaf.grad is None else leaf.grad
    return told


def _kept(chosen, capacity):
    """[tokens, slots]: whether each copy is taken; first come, first served."""
    taken, kept = {}, []
    for expert in chosen.flatten().tolist():
        kept.append(taken.get(expert, 0) < capacity)
        taken[expert] = taken.get(expert, 0) + 1
    return torch.tensor(kept).reshape(chosen.shape)


@exercise.oracle
def everything_in_one_place(x, chosen, gates, weights, rows, capacity):
    """Every expert on every token, in one process; a mask says which of it counts."""
    x, gates, weights = (t.clone().requires_grad_() for t in (x, gates, weights))
    outs, served = [], torch.zeros(len(rows), len(weights), dtype=torch.int64)
    for r, count in enumerate(rows):
        kept = _kept(chosen[r, :count], capacity)
        mask = torch.nn.functional.one_hot(chosen[r, :count], len(weights)) * kept[..., None]
        served[r] = mask.sum((0, 1))
        every = torch.tanh(torch.einsum("td,edf->tef", x[r, :count], weights))
        outs.append(torch.einsum("tk,tke,tef->tf", gates[r, :count], mask.to(x.dtype), every))
    total = sum((o * torch.linspace(-1.0, 2.0, o.numel(), dtype=o.dtype).reshape(o.shape)).sum() for o in outs)
    total.backward()
    mine, told = len(weights) // len(rows), []
    for r, count in enumerate(rows):
        here = range(r * mine, (r + 1) * mine)
        grads = {"x": x.grad[r, :count], "gates": gates.grad[r, :count], "experts": weights.grad[list(here)]}
        calls = [(e, int(served[:, e].sum())) for e in here]
        told.append(
            {"output": outs[r].detach(), "calls": calls} | {f"gradient of {name}": t for name, t in grads.items()}
        )
    return told


exercise.agrees(
    agree_by_entry(["output", "gradient of x", "gradient of gates", "gradient of experts"], everything_in_one_place)
)


def _sizes(one):
    """Rows that each rank sends to the experts, and rows that come to it."""
    x, chosen, _, weights, rows, capacity = one.args
    mine = len(weights) // len(rows)
    goes = torch.zeros(len(rows), len(rows), dtype=torch.int64)
    for r, count in enumerate(rows):
        for expert in chosen[r, :count][_kept(chosen[r, :count], capacity)].tolist():
            goes[r, expert // mine] += 1
    return goes.sum(1).tolist(), goes.sum(0).tolist()


@exercise.law("Only rows that are kept travel: there and back, and so do their gradients", essential=True)
def only_what_is_kept(out, one, call):
    goes, comes = _sizes(one)
    x = one.args[0]
    size = x.shape[-1] * x.element_size()
    for r, messages in enumerate(out.traffic):
        if other := {m.op for m in messages} - {"all_to_all_single", "all_to_all"}:
            return f"{one.label}: rank {r} calls {', '.join(sorted(other))}: tokens travel by all-to-all alone"
        if counts := [m.dtype for m in messages if "float" in m.dtype and len(m.shape) < 2]:
            return f"{one.label}: rank {r} sends counts as {counts[0]}, and int64 is asked for"
        sent = sum(m.bytes for m in messages if "float" in m.dtype)
        need = 2 * (goes[r] + comes[r]) * size
        if sent != need:
            return f"{one.label}: rank {r} sends {sent} bytes of rows and gradients, and {need} are needed"
    return True


@exercise.law("Each expert is asked once, for the rows of all ranks")
def asked_once(out, one, call):
    if not isinstance(out, PerRank) or not all(isinstance(r, dict) for r in out):
        return None
    experts = [expert for r in out for expert, _ in r["calls"]]
    return experts == list(range(len(one.args[3])))


def _dispatch(
    x,
    chosen,
    gates,
    experts,
    capacity,
    apply,
    exchange,
    kept=None,
    before=None,
    after=lambda rows, gate: rows * gate,
    home=lambda order, k: order // k,
    base=lambda x, served: torch.zeros_like(x),
    undo=True,
    stop=lambda rows: rows,
    weighs=lambda gates, kept: gates,
    together=torch.Tensor.index_add,
    apart=False,
):
    """Right as it stands. A mistake takes one of its parts another way."""
    rank, n = place()
    mine, k, flat = experts // n, chosen.shape[1], chosen.flatten()
    queue = torch.nn.functional.one_hot(flat, experts).cumsum(0).gather(1, flat[:, None])[:, 0] - 1
    taken = queue < capacity if kept is None else kept(flat, queue, capacity, k)
    stays = taken.nonzero()[:, 0]
    order = stays[flat[stays].argsort(stable=True)]
    counts = torch.bincount(flat[order], minlength=experts)
    coming = torch.empty_like(counts)
    dist.all_to_all_single(coming, counts)
    goes, comes = (c.reshape(n, mine).sum(1).tolist() for c in (counts, coming))
    gate = weighs(gates, taken.reshape(chosen.shape)).flatten()[order, None]
    leaving = x[order // k]
    rows = exchange(stop(before(leaving, gate) if before else leaving), goes, comes)
    by = torch.arange(mine).repeat(n).repeat_interleave(coming).argsort(stable=True)
    parts = rows[by].split(coming.reshape(n, mine).sum(0).tolist())
    if apart:
        sizes = coming.reshape(n, mine).T.tolist()
        parts = [list(part.split(size)) for part, size in zip(parts, sizes, strict=True)]
    asked = [(rank * mine + e, rows) for e, part in enumerate(parts) for rows in (part if apart else [part])]
    done = torch.cat([apply(expert, rows) for expert, rows in asked])
    back = exchange(done[by.argsort()] if undo else done, comes, goes)
    served = torch.zeros(len(x), dtype=torch.bool)
    served[order // k] = True
    return together(base(x, served), 0, home(order, k), after(back, gate))


exercise.alternative(_dispatch)


@exercise.alternative
def rank_by_rank(x, chosen, gates, experts, capacity, apply, exchange):
    """Lists of copies for each expert; the numbers of the experts travel with the tokens."""
    rank, n = place()
    mine = experts // n
    queues = [[] for _ in range(experts)]
    for token, row in enumerate(chosen.tolist()):
        for slot, expert in enumerate(row):
            if len(queues[expert]) < capacity:
                queues[expert].append((token, slot))
    counts = torch.tensor([len(q) for q in queues])
    coming = torch.zeros_like(counts)
    dist.all_to_all_single(coming, counts)
    goes = [int(c.sum()) for c in counts.split(mine)]
    comes = [int(c.sum()) for c in coming.split(mine)]
    tokens = torch.tensor([t for q in queues for t, _ in q], dtype=torch.int64)
    slots = torch.tensor([s for q in queues for _, s in q], dtype=torch.int64)
    blocks = list(exchange(x[tokens], goes, comes).split(coming.tolist()))
    for e in range(mine):
        sizes = [len(blocks[r * mine + e]) for r in range(n)]
        answers = apply(rank * mine + e, torch.cat([blocks[r * mine + e] for r in range(n)])).split(sizes)
        for r in range(n):
            blocks[r * mine + e] = answers[r]
    back = exchange(torch.cat(blocks), comes, goes) * gates[tokens, slots].unsqueeze(1)
    return torch.stack([back[tokens == t].sum(0) for t in range(len(x))])


def _wrong(**parts):
    return lambda *given: _dispatch(*given, **parts)


def _first_slots_first(flat, queue, capacity, k):
    """All tokens' first choices are served before any second one."""
    turn = torch.arange(len(flat)).reshape(-1, k).T.flatten()
    hot = torch.nn.functional.one_hot(flat[turn]).cumsum(0).gather(1, flat[turn, None])[:, 0] - 1
    return (hot < capacity)[turn.argsort()]


def _last_come(flat, queue, capacity, k):
    return torch.bincount(flat)[flat] - 1 - queue < capacity


exercise.mistake("the capacity is ignored", hint="An expert takes at most `capacity` copies from each rank.")(
    _wrong(kept=lambda flat, queue, capacity, k: queue >= 0)
)
exercise.mistake("an expert takes one copy more than its capacity", hint="At most `capacity`.")(
    _wrong(kept=lambda flat, queue, capacity, k: queue <= capacity)
)
exercise.mistake("an expert takes one copy less than its capacity", hint="As many as `capacity`.")(
    _wrong(kept=lambda flat, queue, capacity, k: queue < capacity - 1)
)
exercise.mistake("the last copies are kept instead of the first", hint="First come, first served.")(
    _wrong(kept=_last_come)
)
exercise.mistake("all first choices are served before the second ones", hint="Token by token, and slot by slot in it.")(
    _wrong(kept=_first_slots_first)
)
exercise.mistake("a token goes to its first expert alone", hint="To all k of its row, each with its gate.")(
    _wrong(kept=lambda flat, queue, capacity, k: (torch.arange(len(flat)) % k == 0) & (queue < capacity))
)
exercise.mistake("the gates are left out", hint="What an expert says is multiplied by the gate of its copy.")(
    _wrong(after=lambda rows, gate: rows)
)
exercise.mistake(
    "tokens are multiplied by their gate before the expert sees them",
    hint="An expert isn't linear: the gate belongs behind it.",
)(_wrong(before=lambda rows, gate: rows * gate, after=lambda rows, gate: rows))
exercise.mistake(
    "a token of which all copies are dropped is passed on unchanged",
    hint="It contributes nothing: zeros. What passes on is the residual connection outside.",
)(_wrong(base=lambda x, served: torch.where(served[:, None], torch.zeros_like(x), x)))
exercise.mistake(
    "for a copy that is dropped its token is passed on, times its gate",
    hint="It contributes nothing. What passes on is the residual connection outside.",
)(
    lambda x, chosen, gates, experts, capacity, *rest: (
        _dispatch(x, chosen, gates, experts, capacity, *rest)
        + (gates * ~_kept(chosen, capacity)).sum(1, keepdim=True) * x
    )
)
exercise.mistake(
    "an expert is asked for the rows of each rank by themselves",
    hint="One large product is faster than several small ones: once, with the rows of all ranks.",
)(_wrong(apart=True))
exercise.mistake("the tokens themselves are added", hint="The residual connection is outside: the answers alone.")(
    _wrong(base=lambda x, served: x)
)
exercise.mistake("the answers of the k experts are averaged", hint="Their sum, each with its gate.")(
    lambda x, chosen, *rest: _dispatch(x, chosen, *rest) / chosen.shape[1]
)
exercise.mistake(
    "answers are sent back in the order of the experts, not in that in which the rows came",
    hint="Whoever sent a row waits for its answer at the row's place: undo your sorting.",
)(_wrong(undo=False))
exercise.mistake(
    "answers are put down in the order in which they come back",
    hint="They come sorted by expert: row i belongs to token order[i] // k.",
)(_wrong(home=lambda order, k: torch.sort(order).values // k))
exercise.mistake(
    "tokens are cut off from the graph on their way to the experts",
    hint="exchange() takes gradients back; detach() would stop them.",
)(_wrong(stop=lambda rows: rows.detach() + 0 * rows))
exercise.mistake(
    "the gates that are left are made to add up to 1",
    hint="An answer is multiplied by the gate that came in, whether others were dropped or not.",
)(_wrong(weighs=lambda gates, kept: gates * kept / (gates * kept).sum(1, keepdim=True).clamp(min=1e-9)))
exercise.mistake(
    "a token's gates are made to add up to 1", hint="An answer is multiplied by the gate that came in, as it is."
)(_wrong(weighs=lambda gates, kept: gates / gates.sum(1, keepdim=True)))
exercise.mistake("a softmax is made of the gates", hint="An answer is multiplied by the gate that came in, as it is.")(
    _wrong(weighs=lambda gates, kept: gates.softmax(1))
)
exercise.mistake("no gradient goes back to the gates", hint="The router learns through its gates: don't detach them.")(
    _wrong(weighs=lambda gates, kept: gates.detach())
)
exercise.mistake(
    "a token has one of its answers, the others are overwritten",
    hint="index_put and x[places] = … keep one row of several for the same place. index_add adds them up.",
)(_wrong(together=lambda out, dim, places, rows: out.index_put((places,), rows)))


@exercise.mistake(
    "all tokens go to all ranks, and each takes what it needs",
    hint="Right numbers. But only the rows that an expert wants should travel to it.",
)
def gathered(x, chosen, gates, experts, capacity, apply, exchange):
    """Every rank sends all its tokens to everybody; experts answer to all, and the rest is thrown away."""
    rank, n = place()
    mine = experts // n
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(n)]
    dist.all_gather(sizes, torch.tensor([len(x)]))
    sizes = [int(s) for s in sizes]
    queue = torch.nn.functional.one_hot(chosen.flatten(), experts).cumsum(0)
    place_in_queue = queue.gather(1, chosen.flatten()[:, None])[:, 0] - 1
    gate = torch.zeros(len(x) * chosen.shape[1], dtype=x.dtype).index_add(
        0, (place_in_queue < capacity).nonzero()[:, 0], gates.flatten()[place_in_queue < capacity]
    )
    rows = exchange(x.repeat(n, 1), [len(x)] * n, sizes)
    answers = torch.cat([apply(rank * mine + e, rows) for e in range(mine)], 1)
    back = exchange(answers, sizes, [len(x)] * n).reshape(n, len(x), mine, -1).transpose(0, 1).flatten(1, 2)
    picked = back.gather(1, chosen[..., None].expand(-1, -1, x.shape[1]))
    return (picked * gate.reshape(chosen.shape)[..., None]).sum(1)


@exercise.mistake(
    "rows are padded before they travel", hint="Right numbers, and zeros on the wire. Send what is kept, and no more."
)
def padded(x, chosen, gates, experts, capacity, apply, exchange):
    def padded_exchange(rows, sent, received):
        extra = [n + 1 for n in sent], [n + 1 for n in received]
        zero = rows.new_zeros(1, rows.shape[1])
        came = exchange(torch.cat([torch.cat([part, zero]) for part in rows.split(sent)]), *extra)
        return torch.cat([part[:-1] for part in came.split(extra[1])])

    return _dispatch(x, chosen, gates, experts, capacity, apply, padded_exchange)


@exercise.mistake(
    "no gradient goes back to the experts, nor to the tokens through them",
    hint="exchange() sends gradients the other way; dist.all_to_all_single by itself doesn't, and detach() stops them.",
)
def without_autograd(x, chosen, gates, experts, capacity, apply, exchange):
    def plain(rows, sent, received):
        came = rows.new_empty(sum(received), rows.shape[1])
        dist.all_to_all_single(came, rows.detach().contiguous(), received, sent)
        return came

    return _dispatch(x, chosen, gates, experts, capacity, apply, plain)


@exercise.mistake(
    "an expert that nobody wants isn't asked",
    hint="Ask it with no rows: else a rank without work takes no part in the backward pass, and others wait.",
    hangs=True,
)
def skips_idle_experts(x, chosen, gates, experts, capacity, apply, exchange):
    def ask(expert, rows):
        return apply(expert, rows) if len(rows) else rows.detach()

    return _dispatch(x, chosen, gates, experts, capacity, ask, exchange)

"""`shard_flat(tensors, rank, world)`

A rank's part of some tensors: flattened, joined, padded with zeros and cut into equal parts, as a copy.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.data_parallel.zero_and_fsdp.shared import joined, share
from autograde.exercises.shared import pick, randn
from autograde.judging.comparing import compare

exercise = Draft(
    "shard_flat",
    points=3,
    strides=False,
    no_gradient="a rank's part is what it stores: no graph leads through it",
    hints=[
        "One long vector of all numbers first. How many zeros are missing to a multiple of `world`?",
        "size = ceil(total / world). Part r is the numbers from r * size to (r + 1) * size of the padded vector. And "
        "what does a slice keep alive?",
        "flat = torch.cat([t.detach().flatten() for t in tensors]); append flat.new_zeros(size * world - len(flat)); "
        "return flat[rank * size : (rank + 1) * size].clone().",
    ],
)


@exercise.cases
def flat_cases(g):
    d, h = pick(g, 2, 4), pick(g, 5, 7)
    yield case([randn(g, h, d), randn(g, h), randn(g, 1 + (h * d + h) % 3)], 1, 3, label="weights and biases")
    # 4 k + 1 numbers on four ranks: the last part has padding, and torch.tensor_split would cut otherwise
    k = pick(g, 2, 5)
    yield case([randn(g, k, 4), randn(g, 1)], 3, 4, label="the last part is padded")
    yield case([randn(g, k, 4), randn(g, 1)], 0, 4, label="the first of parts that don't divide evenly")
    yield case([randn(g, 3), randn(g, 2)], 3, 4, label="five numbers on four ranks: nothing is left for the last")
    yield case([randn(g, 2, k, d)], 0, 1, label="one rank, one tensor")
    yield case([randn(g, 2 * k)], 1, 2, label="one vector that divides evenly")
    yield case([randn(g), randn(g, 0, d), randn(g, d, 3)], 0, 2, label="a scalar and an empty tensor")
    yield case([randn(g, 1, 2)], 1, 2, label="two numbers on two ranks")
    yield case([randn(g, 40, 50), randn(g, pick(g, 11, 17))], pick(g, 1, 6), 8, label="large")


@exercise.oracle
def torch_flat_parameter(tensors, rank, world):
    """What FSDP's first version stores."""
    from torch.distributed.fsdp._flat_param import FlatParamHandle

    flat = torch.cat([t.flatten() for t in tensors])
    part = FlatParamHandle._get_shard(flat, rank, world)[0]
    return {"part": part, "dtype": str(part.dtype), "storage": part.nbytes, "graph": False}


@exercise.probe
def cut_and_go_on(shard_flat, tensors, rank, world):
    """Cut parameters, then change them: a part that shares memory with them changes, too."""
    import torch
    from torch import nn

    parameters = [nn.Parameter(t.clone()) for t in tensors]
    part = shard_flat(parameters, rank, world)
    with torch.no_grad():
        for p in parameters:
            p.add_(100.0)
    storage = part.untyped_storage().nbytes()
    graph = part.grad_fn is not None and "a graph leads from it to the tensors"
    told = {"dtype": str(part.dtype), "storage": storage, "graph": graph or part.requires_grad and "it wants gradients"}
    return {"part": part.detach()} | told


@exercise.agrees
def _agrees(expected, got, one):
    if not isinstance(got, dict):
        return "is not what was expected"
    kept, right = (
        [x[key] for key in ("dtype", "storage", "graph")] for x in (expected, torch_flat_parameter(*one.args))
    )
    if kept != right and any(expected[key] != got[key] for key in ("dtype", "storage", "graph")):
        return False  # another mistake: a right answer's memory, dtype and graph are for the laws
    mismatch = compare(expected["part"], got["part"], rtol=0, atol=0)
    return mismatch.message if mismatch else True


@exercise.law("The part holds the memory of its own numbers, and no more", essential=True)
def _holds_its_own(out, one, call):
    need = share(sum(t.numel() for t in one.args[0]), one.args[2]) * one.args[0][0].element_size()
    return out["storage"] == need or f"{out['storage']} bytes are kept alive, and the part has {need}"


@exercise.law("The part has the dtype of the tensors")
def _dtype(out, one, call):
    kind = str(one.args[0][0].dtype)
    return out["dtype"] == kind or f"{kind} went in, {out['dtype']} came out"


@exercise.law("No graph leads from the part to the tensors")
def _no_graph(out, one, call):
    return not out["graph"] or f"{one.label}: {out['graph']}"


def _part(flat, rank, size):
    return flat[rank * size : (rank + 1) * size].clone()


@exercise.alternative
def by_chunks(tensors, rank, world):
    """Right: torch.chunk, then padding."""
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    chunks = flat.chunk(world)
    part = flat.new_zeros(len(chunks[0]))
    if rank < len(chunks):
        part[: len(chunks[rank])] = chunks[rank]
    return part


@exercise.alternative
def piece_by_piece(tensors, rank, world):
    """Right: without the long vector, each tensor's overlap with the part is copied."""
    size = share(sum(t.numel() for t in tensors), world)
    part, start = tensors[0].new_zeros(size), 0
    for t in tensors:
        low, high = max(start, rank * size), min(start + t.numel(), (rank + 1) * size)
        if low < high:
            part[low - rank * size : high - rank * size] = t.detach().flatten()[low - start : high - start]
        start += t.numel()
    return part


@exercise.alternative
def by_rows(tensors, rank, world):
    """Right: the padded vector as a table with one row a rank."""
    return joined(tensors, world).view(world, -1)[rank].clone()


@exercise.mistake(
    "the part is a view, which keeps the whole vector alive",
    hint="A slice has no memory of its own. As long as it lives, so does all that it was cut from.",
)
def as_a_view(tensors, rank, world):
    return joined(tensors, world).chunk(world)[rank]


@exercise.mistake(
    "the part is cut as a view of the parameter itself where there is one tensor and nothing to pad",
    hint="torch.cat copies, flatten and slices don't. clone() at the end does in every case.",
)
def as_a_view_of_one(tensors, rank, world):
    size = share(sum(t.numel() for t in tensors), world)
    if len(tensors) == 1 and tensors[0].numel() == size * world:
        return tensors[0].detach().flatten()[rank * size : (rank + 1) * size]
    return _part(joined(tensors, world), rank, size)


@exercise.mistake(
    "the last parts are shorter, because nothing is padded",
    hint="Collectives want equal parts: append zeros first.",
)
def unpadded(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    return _part(flat, rank, share(len(flat), world))


@exercise.mistake(
    "the numbers that don't divide evenly are dropped", hint="Round the size of a part up and pad; nothing gets lost."
)
def dropped(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    return _part(flat, rank, len(flat) // world)


@exercise.mistake(
    "the vector is cut as tensor_split does, the first parts longer by one",
    hint="tensor_split(4) of 9 numbers: 3, 2, 2, 2. Padded to 12 they are 3, 3, 3, 3, with the zeros at the end.",
)
def split_evenly(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    part = flat.tensor_split(world)[rank]
    return torch.cat([part, part.new_zeros(share(len(flat), world) - len(part))])


@exercise.mistake(
    "every tensor is cut by itself, and the parts are joined",
    hint="Join all tensors to one vector first: one padding for all, and one message.",
)
def each_by_itself(tensors, rank, world):
    parts = [_part(joined([t], world), rank, share(t.numel(), world)) for t in tensors]
    return torch.cat(parts)


@exercise.mistake(
    "rank r takes every world-th number, from the r-th on", hint="A part is a block of neighbors: one after the other."
)
def strided(tensors, rank, world):
    return joined(tensors, world)[rank::world].clone()


@exercise.mistake("the zeros come first", hint="Pad at the end, so that places in the vector don't move.")
def padded_before(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    size = share(len(flat), world)
    return _part(torch.cat([flat.new_zeros(size * world - len(flat)), flat]), rank, size)


@exercise.mistake("every rank keeps the whole vector", hint="A part: one of `world` equal ones.")
def whole(tensors, rank, world):
    return joined(tensors, world)


@exercise.mistake("every rank keeps the first part", hint="Part `rank`.")
def first_for_all(tensors, rank, world):
    return _part(joined(tensors, world), 0, share(sum(t.numel() for t in tensors), world))


@exercise.mistake(
    "the padding is the vector's own beginning instead of zeros",
    hint="That is right for a sampler. Here the padding must not weigh anything: zeros.",
)
def padded_with_the_beginning(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    size = share(len(flat), world)
    return _part(flat.repeat(world)[: size * world], rank, size)


@exercise.mistake("the padding is left uninitialized", hint="new_zeros, not new_empty: AdamW would work on garbage.")
def padded_with_garbage(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    size = share(len(flat), world)
    return _part(torch.cat([flat, flat.new_full((size * world - len(flat),), 3e8)]), rank, size)


@exercise.mistake("the part is always float32", hint="Keep the tensors' dtype: new_zeros takes it from its owner.")
def in_float32(tensors, rank, world):
    return by_rows([t.float() for t in tensors], rank, world)


@exercise.mistake(
    "a graph leads from the part to the parameters, and with it they stay alive",
    hint="detach() before you copy, or torch.no_grad().",
)
def with_a_graph(tensors, rank, world):
    flat = torch.cat([t.flatten() for t in tensors])
    size = share(len(flat), world)
    return _part(torch.cat([flat, flat.new_zeros(size * world - len(flat))]), rank, size)


@exercise.mistake(
    "the part wants gradients of its own, as a parameter does",
    hint="A plain tensor is asked for. Who trains with it makes it a parameter.",
)
def as_a_parameter(tensors, rank, world):
    return torch.nn.Parameter(by_rows(tensors, rank, world))


@exercise.mistake("the parts are numbered from the end", hint="Part 0 holds the first numbers.")
def from_the_end(tensors, rank, world):
    return by_rows(tensors, world - 1 - rank, world)


@exercise.mistake("the tensors are joined in reverse order", hint="The order of the list.")
def in_reverse(tensors, rank, world):
    return by_rows(tensors[::-1], rank, world)


@exercise.mistake("the part is a table of one row", hint="A vector is asked for: index the row, don't slice it.")
def one_row(tensors, rank, world):
    return by_rows(tensors, rank, world)[None]


@exercise.mistake(
    "a number of padding is added where none is missing", hint="A multiple of `world` needs no padding: round up."
)
def one_too_many(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    size = len(flat) // world + 1
    return _part(torch.cat([flat, flat.new_zeros(size * world - len(flat))]), rank, size)


@exercise.mistake("the padding repeats the last number", hint="The padding must not weigh anything: zeros.")
def padded_with_the_last(tensors, rank, world):
    flat = torch.cat([t.detach().flatten() for t in tensors])
    size = share(len(flat), world)
    return _part(torch.cat([flat, flat[-1:].expand(size * world - len(flat))]), rank, size)

"""`relative_scores(q, k, table, u=None, v=None)`

Scores of queries with keys and with learned vectors of their distance.
"""

from __future__ import annotations

import types

import torch

from autograde.borrowed import borrowed
from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import randn

exercise = Draft(
    "relative_scores",
    points=4,
    forbid=["transformers"],
    rtol=1e-3,
    atol=1e-4,
    hints=[
        "First the distances alone: where does query i stand, if the n queries are the last of m tokens? Then j minus "
        "that, cut off at -L and L, and moved so that -L becomes row 0.",
        "Pick the rows with table[rows]: [n, m, d], one vector for each pair. Query i meets those of its own row only. "
        "A bias of a head, [heads, d], has to be seen as [heads, 1, d] beside the queries.",
        "rows = (arange(m) - arange(m - n, m)[:, None]).clamp(-L, L) + L; scores = (q + u) @ k.mT + "
        'einsum("...nd,nmd->...nm", q + v, table[rows]); divide by sqrt(d).',
    ],
)


def _some(g, lead, heads, n, m, d, reach):
    return randn(g, *lead, heads, n, d), randn(g, *lead, heads, m, d), randn(g, 2 * reach + 1, d)


def _biased(g, lead, heads, n, m, d, reach):
    return *_some(g, lead, heads, n, m, d, reach), 2 * randn(g, heads, d), 2 * randn(g, heads, d)


@exercise.cases
def relative_cases(g):
    yield case(*_some(g, (2,), 2, 5, 5, 3, 2), label="five tokens, vectors up to two apart")
    yield case(*_biased(g, (2,), 3, 6, 6, 4, 2), label="with both biases, as Transformer-XL")
    yield case(*_some(g, (), 3, 2, 7, 4, 3), label="two new tokens after five")
    yield case(*_biased(g, (), 2, 4, 6, 5, 9), label="vectors for more distances than there are")
    yield case(*_some(g, (2, 2), 2, 4, 4, 2, 1), label="two batch dimensions, only -1, 0, 1")
    yield case(*_some(g, (2,), 1, 4, 6, 3, 2), label="one head")
    yield case(*_biased(g, (2,), 4, 1, 5, 3, 2), label="one new token after four")
    yield case(*_some(g, (1,), 2, 1, 1, 1, 1), label="a batch of one, one token, width one")
    yield case(*_some(g, (2,), 2, 4, 4, 3, 0), label="one vector for all distances")
    yield case(*_some(g, (2,), 3, 4, 5, 3, 2), u=randn(g, 3, 3), label="only the content bias")
    yield case(*_some(g, (2,), 3, 4, 5, 3, 2), v=randn(g, 3, 3), label="only the position bias")
    yield case(*_biased(g, (3,), 3, 3, 3, 3, 3), label="heads, tokens, batch and width alike")
    yield case(*_some(g, (), 2, 60, 130, 3, 20), label="a long text")


@exercise.oracle
def wav2vec(q, k, table, u=None, v=None):
    """Wav2Vec2-BERT's own position scores, in float64, of n queries that follow m - n others; plus the contents'."""
    n, m, d = q.shape[-2], k.shape[-2], q.shape[-1]
    content, placed = (q.double() if b is None else q.double() + b.double()[:, None] for b in (u, v))
    reach, rows = len(table) // 2, table.double()
    layer = types.SimpleNamespace(
        left_max_position_embeddings=reach,
        right_max_position_embeddings=reach,
        distance_embedding=lambda distance: rows[distance],
        scaling=d**-0.5,
    )
    positions = borrowed(
        "transformers.models.wav2vec2_bert.modeling_wav2vec2_bert", "_apply_relative_key_position_encoding"
    )
    behind = torch.cat([placed.new_zeros(*placed.shape[:-2], m - n, d), placed], -2)
    _, found = positions(layer, behind.reshape(-1, *behind.shape[-3:]), k.double().reshape(-1, *k.shape[-3:]))
    found = found[..., m - n :, :].reshape(*q.shape[:-1], m)
    return (content @ k.double().mT * d**-0.5 + found).to(q.dtype)


@exercise.law("Without vectors they are ordinary scores")
def empty_table(out, one, call):
    q, k, table = one.args[:3]
    return same(call(q, k, 0 * table), q @ k.mT / q.shape[-1] ** 0.5, rtol=1e-3, atol=1e-3)


@exercise.law("Keys of zeros leave what depends on the distance alone")
def constant_along_diagonals(out, one, call):
    """Equal queries and no contents: one number for each distance."""
    q, k, table = one.args[:3]
    if q.shape[-2] < 2:
        return None
    alone = call(q[..., :1, :].expand_as(q).contiguous(), 0 * k, table)
    return same(alone[..., 1:, 1:], alone[..., :-1, :-1], rtol=1e-3, atol=1e-3)


@exercise.law("The queries are the last of the tokens")
def last_alone(out, one, call):
    """The last query, asked alone, gets the last row."""
    q, k, table = one.args[:3]
    biases = {"u": _bias(one, "u", 3), "v": _bias(one, "v", 4)}
    given = {name: bias for name, bias in biases.items() if bias is not None}
    return same(call(q[..., -1:, :], k, table, **given), out[..., -1:, :], rtol=1e-3, atol=1e-3)


exercise.law("The result has the dtype of q")(keeps_dtype)


def _bias(one, name, place):
    return one.kwargs.get(name, one.args[place] if len(one.args) > place else None)


def _rows(n, m, reach):
    return (torch.arange(m) - torch.arange(m - n, m)[:, None]).clamp(-reach, reach) + reach


def _relative(rows=_rows, meet=None, scale=lambda d, m: d**-0.5, change=lambda *given: given, biased=None):
    """The right way with one screw turned."""

    def scores(q, k, table, u=None, v=None):
        q, k, table, u, v = change(q, k, table, u, v)
        n, m, d = q.shape[-2], k.shape[-2], q.shape[-1]
        content, placed = (biased or _with)(q, u, v)
        vectors = table[rows(n, m, len(table) // 2)]
        found = (meet or _meet)(placed, vectors)
        return (content @ k.mT + found) * scale(d, m)

    return scores


def _with(q, u, v):
    return tuple(q if b is None else q + b[:, None] for b in (u, v))


def _meet(placed, vectors):
    return torch.einsum("...nd,nmd->...nm", placed, vectors)


exercise.mistake(
    "past and future are swapped", hint="Row 0 belongs to keys L or more *before* the query: j minus the query's place."
)(_relative(rows=lambda n, m, reach: _rows(n, m, reach).neg() + 2 * reach))

exercise.mistake(
    "the queries count from 0, though others stand before them", hint="Query i stands at m - n + i, after m - n others."
)(_relative(rows=lambda n, m, reach: (torch.arange(m) - torch.arange(n)[:, None]).clamp(-reach, reach) + reach))


def _wrapped(n, m, reach):
    """Python's negative index: distances too far back come from the table's other end."""
    return (torch.arange(m) - torch.arange(m - n, m)[:, None] + reach).remainder(2 * reach + 1)


exercise.mistake(
    "far distances wrap around to the other end of the table", hint="Cut them off at -L and L: clamp, before you index."
)(_relative(rows=_wrapped))

exercise.mistake("the reach is one too small", hint="2L + 1 rows: L for the past, one for the token itself, L ahead.")(
    _relative(rows=lambda n, m, reach: (_rows(n, m, reach) - reach).clamp(1 - reach, max(reach - 1, 0)) + reach)
)

exercise.mistake("the last row of the table is never used", hint="It belongs to keys L or more places ahead.")(
    _relative(rows=lambda n, m, reach: _rows(n, m, reach).clamp(max=max(2 * reach - 1, 0)))
)

exercise.mistake(
    "the distance is taken without its sign", hint="A key before the query and one after it have vectors of their own."
)(_relative(rows=lambda n, m, reach: (_rows(n, m, reach) - reach).abs() + reach))

exercise.mistake(
    "the future counts as distance 0", hint="No mask here: keys after the query have vectors of their own."
)(_relative(rows=lambda n, m, reach: _rows(n, m, reach).clamp(max=reach)))


exercise.mistake(
    "the keys meet the vectors instead of the queries",
    hint="Shaw adds the vector to the key, and the *query* multiplies that sum.",
)(lambda q, k, table, u=None, v=None: _keys_meet(q, k, table, u))


def _keys_meet(q, k, table, u):
    vectors = table[_rows(q.shape[-2], k.shape[-2], len(table) // 2)]
    content = _with(q, u, None)[0] @ k.mT
    return (content + torch.einsum("...md,nmd->...nm", k, vectors)) * q.shape[-1] ** -0.5


exercise.mistake("the position scores are left out", hint="q · k is only the first of two products.")(
    _relative(meet=lambda placed, vectors: 0.0)
)

exercise.mistake("the scores aren't divided by sqrt(d)", hint="Both products are divided.")(
    _relative(scale=lambda d, m: 1.0)
)


@exercise.mistake("only the content scores are divided by sqrt(d)", hint="Both products are divided.")
def positions_unscaled(q, k, table, u=None, v=None):
    content, placed = _with(q, u, v)
    vectors = table[_rows(q.shape[-2], k.shape[-2], len(table) // 2)]
    return content @ k.mT * q.shape[-1] ** -0.5 + _meet(placed, vectors)


@exercise.mistake("only the position scores are divided by sqrt(d)", hint="Both products are divided.")
def contents_unscaled(q, k, table, u=None, v=None):
    content, placed = _with(q, u, v)
    vectors = table[_rows(q.shape[-2], k.shape[-2], len(table) // 2)]
    return content @ k.mT + _meet(placed, vectors) * q.shape[-1] ** -0.5


@exercise.mistake(
    "each vector is boiled down to a number first, the sum of its entries",
    hint="That would be T5's bias. Here the query decides what a distance is worth: a dot product.",
)
def summed_vectors(q, k, table, u=None, v=None):
    vectors = table[_rows(q.shape[-2], k.shape[-2], len(table) // 2)]
    return (_with(q, u, v)[0] @ k.mT + vectors.sum(-1)) * q.shape[-1] ** -0.5


exercise.mistake("u and v are swapped", hint="u goes with the contents, v with the positions.")(
    _relative(biased=lambda q, u, v: _with(q, v, u))
)

exercise.mistake("u and v are ignored", hint="Where a bias is given, it is added to the queries of its head.")(
    _relative(biased=lambda q, u, v: (q, q))
)

exercise.mistake("u is added for both products", hint="The positions have a bias of their own, v.")(
    _relative(biased=lambda q, u, v: _with(q, u, u))
)

exercise.mistake("v is added for both products", hint="The contents have a bias of their own, u.")(
    _relative(biased=lambda q, u, v: _with(q, v, v))
)

exercise.mistake("both biases are added for both products", hint="u is for the contents alone, v for the positions.")(
    _relative(biased=lambda q, u, v: (_with(_with(q, u, None)[0], v, None)[0],) * 2)
)

exercise.mistake("all heads get the first head's biases", hint="u and v have a row a head: [heads, 1, d] beside q.")(
    _relative(biased=lambda q, u, v: _with(q, *(b if b is None else b[:1].expand_as(b) for b in (u, v))))
)

exercise.mistake("no gradient reaches the table", hint="Its vectors are learned: detach nothing.")(
    _relative(change=lambda q, k, table, u, v: (q, k, table.detach(), u, v))
)

exercise.mistake("a softmax is taken", hint="Scores are asked for: masks and softmax come later.")(
    lambda *given, **named: _relative()(*given, **named).softmax(-1)
)

exercise.mistake(
    "everything is computed in float32, also for float64", hint="Don't cast: the result has the dtype of q."
)(_relative(change=lambda *given: tuple(x if x is None else x.float() for x in given)))


exercise.alternative(_relative())


@exercise.alternative
def relative_by_loop(q, k, table, u=None, v=None):
    n, m, reach = q.shape[-2], k.shape[-2], len(table) // 2
    content, placed = _with(q, u, v)
    columns = []
    for j in range(m):
        vectors = torch.stack([table[min(max(j - (m - n + i), -reach), reach) + reach] for i in range(n)])
        columns.append((content * k[..., j : j + 1, :]).sum(-1) + (placed * vectors).sum(-1))
    return torch.stack(columns, -1) / q.shape[-1] ** 0.5


@exercise.alternative
def relative_by_gather(q, k, table, u=None, v=None):
    """All queries with all vectors first, [n, 2L + 1], then each pair picks its own: no [n, m, d]."""
    content, placed = _with(q, u, v)
    rows = _rows(q.shape[-2], k.shape[-2], len(table) // 2)
    with_all = placed @ table.mT
    return (content @ k.mT + with_all.gather(-1, rows.expand(*q.shape[:-1], k.shape[-2]))) / q.shape[-1] ** 0.5


@exercise.alternative
def relative_by_shift(q, k, table, u=None, v=None):
    """Transformer-XL's trick: a vector for each distance from -(m - 1) to m - 1, and rows that are shifted."""
    n, m, reach = q.shape[-2], k.shape[-2], len(table) // 2
    content, placed = _with(q, u, v)
    wide = placed @ table[torch.arange(1 - m, m).clamp(-reach, reach) + reach].mT  # [..., n, 2m - 1]
    padded = torch.cat([wide, wide.new_zeros(*wide.shape[:-1], 1)], -1).flatten(-2)[..., : n * (2 * m - 1)]
    shifted = padded.reshape(*wide.shape)[..., n - 1 : n - 1 + m]
    return (content @ k.mT + shifted) / q.shape[-1] ** 0.5

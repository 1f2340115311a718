"""`cosine_top_k(queries, vectors, k)`: The k vectors nearest to each query by cosine, best first."""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import integer, randn

exercise = Draft(
    "cosine_top_k",
    points=3,
    no_gradient="which vectors are near is looked up, not trained",
    forbid=["sklearn", "faiss", "torch.nn.functional.cosine_similarity"],
    dtypes=(torch.float64,),
    hints=[
        "With vectors of length 1 the cosine is a dot product, and one matrix product compares all with all.",
        "Divide rows by their norm(dim=-1, keepdim=True); a row of zeros must stay one. Then the best of each row, "
        "but no more than there are.",
        "`unit = lambda x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)`; "
        "`(unit(queries) @ unit(vectors).T).topk(min(k, len(vectors)))`.",
    ],
)


def _apart(g, q, n, d, long=4.0):
    """Queries and vectors of very different lengths, so that no two cosines and no two dot products nearly agree."""
    while True:
        queries, vectors = randn(g, q, d), randn(g, n, d) * torch.exp(long * torch.rand(n, 1, generator=g))
        found = torch.nn.functional.normalize(queries, dim=-1) @ torch.nn.functional.normalize(vectors, dim=-1).T
        if n == 1 or found.sort(-1).values.diff(dim=-1).min() > 3e-6:
            return queries, vectors


@exercise.cases
def top_k_cases(g):
    yield case(*_apart(g, 3, 12, 5), 4, label="three queries, twelve vectors")
    queries, vectors = _apart(g, 2, 9, 4)
    yield case(
        queries * torch.tensor([[50.0], [0.02]]), vectors, k=1, label="the nearest alone; a long and a short query"
    )
    yield case(*_apart(g, 4, 6, 3), 6, label="k is the number of vectors")
    yield case(*_apart(g, 2, 5, 7), 9, label="k is larger than the number of vectors")
    yield case(*_apart(g, 1, 1, 6), 3, label="one vector")
    queries, vectors = _apart(g, 2, 6, 4)
    vectors[1], vectors[4], vectors[2] = 0.0, -queries[0], queries[1]
    yield case(queries, vectors, 6, label="a vector of zeros, an opposite one, and a query itself")
    yield case(
        -torch.ones(1, 3),
        torch.tensor([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        2,
        label="none of them points the same way",
    )
    yield case(torch.zeros(0, 4), vectors, 2, label="no query")
    yield case(queries, torch.zeros(0, 4), 2, label="no vectors")
    yield case(queries, vectors * 1e-4, 3, label="tiny vectors")
    many = _apart(g, 2, 400, 24)
    yield case(*many, integer(g, 11, 30), label="four hundred vectors")


@exercise.oracle
def by_faiss(queries, vectors, k):
    """faiss compares with all of them (a flat index), on vectors that numpy has scaled to length 1."""
    import faiss
    import numpy as np

    def unit(x):
        x = x.double().numpy()
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        return (x / np.where(norms, norms, 1)).astype(np.float32)

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(unit(vectors))
    k = min(k, len(vectors))
    if not k or not len(queries):
        return torch.zeros(len(queries), k, dtype=queries.dtype), torch.zeros(len(queries), k, dtype=torch.int64)
    scores, places = index.search(unit(queries), k)
    return torch.from_numpy(scores).to(queries.dtype), torch.from_numpy(places)


exercise.law("The scores have the dtype of queries")(keeps_dtype)


@exercise.law("Places are int64")
def places_are_int64(out, one, call):
    return out[1].dtype == torch.int64 or f"they are {out[1].dtype}"


def _asked(one):
    return dict(zip(("queries", "vectors", "k"), one.args, strict=False)) | one.kwargs


@exercise.law("Each row is ordered, best first, and names no vector twice")
def ordered(out, one, call):
    scores, places = out
    return bool((scores.diff(dim=-1) <= 0).all()) and all(len(set(row)) == len(row) for row in places.tolist())


@exercise.law("Lengths don't count, only directions")
def lengths_dont_count(out, one, call):
    asked = _asked(one)
    scores, places = call(asked["queries"] * 3, asked["vectors"] / 5, asked["k"])
    return torch.equal(places, out[1]) and same(scores, out[0], rtol=1e-3, atol=1e-4)


@exercise.law("A score is the cosine of the query with the vector at its place, from -1 to 1")
def scores_belong_to_places(out, one, call):
    asked = _asked(one)
    scores, places = out
    if not scores.numel():
        return None
    a = asked["queries"].double()[:, None].expand(-1, scores.shape[1], -1)
    b = asked["vectors"].double()[places]
    lengths = (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=1e-30)
    return same(((a * b).sum(-1) / lengths).to(scores.dtype), scores, rtol=1e-3, atol=1e-4)


def unit(x, dim=-1):
    norms = x.norm(dim=dim, keepdim=True)
    return x / torch.where(norms > 0, norms, 1)


def _made(
    compare=lambda a, b: unit(a) @ unit(b).T, clip=min, largest=True, finish=lambda scores, places: (scores, places)
):
    """A search in parts: how rows are compared, what a large k becomes, which end is best, what is given back."""

    def cosine_top_k(queries, vectors, k):
        found = compare(queries, vectors).topk(clip(k, len(vectors)), dim=-1, largest=largest)
        return finish(found.values, found.indices)

    return cosine_top_k


right = _made()

exercise.mistake("the vectors aren't scaled to length 1", hint="A long vector wins every dot product.")(
    _made(lambda a, b: a @ b.T)
)

exercise.mistake("only the queries are scaled to length 1", hint="Divide the vectors by their lengths, too.")(
    _made(lambda a, b: unit(a) @ b.T)
)

exercise.mistake("only the vectors are scaled to length 1", hint="The places are right: the scores aren't cosines.")(
    _made(lambda a, b: a @ unit(b).T)
)

exercise.mistake("a row of zeros gives NaN", hint="Its cosine is 0 here: keep the division clear of 0.")(
    _made(lambda a, b: a / a.norm(dim=-1, keepdim=True) @ (b / b.norm(dim=-1, keepdim=True)).T)
)

exercise.mistake("a vector that equals the query is left out", hint="All vectors take part: its cosine is 1.")(
    _made(lambda a, b: unit(a) @ unit(b).T - 3.0 * (unit(a) @ unit(b).T > 1 - 1e-6))
)

exercise.mistake("the k farthest are given", hint="The largest cosines come first.")(_made(largest=False))

exercise.mistake("distances are given, not cosines", hint="Of unit vectors: |a - b|² = 2 - 2 cos. Give the cosine.")(
    _made(lambda a, b: -torch.cdist(unit(a), unit(b)), finish=lambda scores, places: (-scores, places))
)

exercise.mistake(
    "the nearest by Euclidean distance are taken", hint="Directions alone count: scale to length 1 first."
)(_made(lambda a, b: -torch.cdist(a, b)))

exercise.mistake("a k larger than the number of vectors is passed on to topk", hint="min(k, len(vectors)).")(
    _made(clip=lambda k, n: k)
)

exercise.mistake("places come first, then scores", hint="(scores, places).")(
    _made(finish=lambda scores, places: (places, scores))
)

exercise.mistake("each row is ordered from worst to best", hint="Best first.")(
    _made(finish=lambda scores, places: (scores.flip(-1), places.flip(-1)))
)

exercise.mistake("lengths are taken over columns", hint="A vector is a row: dim=-1.")(
    _made(lambda a, b: unit(a, dim=0) @ unit(b, dim=0).T)
)

exercise.mistake("the sign is lost", hint="An opposite vector is the farthest: its cosine is -1.")(
    _made(lambda a, b: (unit(a) @ unit(b).T).abs())
)

exercise.mistake("places are int32", hint="int64, as torch indexes.")(
    _made(finish=lambda scores, places: (scores, places.int()))
)

exercise.mistake("the scores are float32 whatever the inputs are", hint="They have the dtype of queries.")(
    _made(finish=lambda scores, places: (scores.float(), places))
)

exercise.mistake("all queries get what the first one gets", hint="Each row of queries has its own k nearest.")(
    _made(lambda a, b: (unit(a[:1]) @ unit(b).T).expand(len(a), -1))
)

exercise.mistake("lengths below 1 are raised to 1", hint="Keep clear of 0 alone, with a far smaller number.")(
    _made(
        lambda a, b: a / a.norm(dim=-1, keepdim=True).clamp(min=1) @ (b / b.norm(dim=-1, keepdim=True).clamp(min=1)).T
    )
)

exercise.mistake("a small number is added to the lengths", hint="Tiny vectors feel it: clamp(min=1e-12) instead.")(
    _made(lambda a, b: a @ b.T / (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1) + 1e-3))
)

exercise.mistake("rows are divided by their squared length", hint="By the length itself, the root of it.")(
    _made(
        lambda a, b: (
            unit(a)
            / a.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            @ (unit(b) / b.norm(dim=-1, keepdim=True).clamp(min=1e-12)).T
        )
    )
)

exercise.mistake("each vector's mean is subtracted first", hint="That is Pearson's correlation.")(
    _made(lambda a, b: unit(a - a.mean(-1, keepdim=True)) @ unit(b - b.mean(-1, keepdim=True)).T)
)


@exercise.mistake(
    "missing places are filled with -1, as faiss does", hint="[q, min(k, n)]: give no more than there are."
)
def filled_up(queries, vectors, k):
    scores, places = right(queries, vectors, k)
    missing = (0, max(k - len(vectors), 0))
    return torch.nn.functional.pad(scores, missing), torch.nn.functional.pad(places, missing, value=-1)


exercise.alternative(right)


@exercise.alternative
def by_sorting(queries, vectors, k):
    found = torch.einsum("id,jd->ij", *(torch.nn.functional.normalize(x, dim=-1) for x in (queries, vectors)))
    order = found.argsort(dim=-1, descending=True)[:, :k]
    return found.gather(1, order), order


@exercise.alternative
def by_rows(queries, vectors, k):
    """One query at a time."""
    scores = torch.zeros(len(queries), min(k, len(vectors)), dtype=queries.dtype)
    places = torch.zeros(scores.shape, dtype=torch.int64)
    for i, query in enumerate(queries):
        cosines = (vectors * query).sum(-1) / (vectors.norm(dim=-1) * query.norm()).clamp(min=1e-30)
        scores[i], places[i] = cosines.topk(scores.shape[1])
    return scores, places

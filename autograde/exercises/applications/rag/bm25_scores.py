"""`bm25_scores(queries, documents, k1=1.5, b=0.75)`: How well documents fit queries, by shared words."""

from __future__ import annotations

import math
from collections import Counter

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.rag.shared import words
from autograde.exercises.shared import integer

exercise = Draft(
    "bm25_scores",
    points=4,
    no_gradient="counts of words: nothing is trained",
    forbid=["bm25s", "sklearn"],
    hints=[
        "One word at a time: in how many documents does it stand, and how often in each? Which parts of the formula "
        "depend on the word alone, and which on the document alone?",
        "Count each document once with a Counter; n of a word is the number of counters that hold it. A document "
        "without the word gets nothing for it.",
        "For each word of a query and each document with f > 0 add "
        "`math.log(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / average))`.",
    ],
)

KNOWN = ["the", "of", "sum", "axis", "Axis", "loss", "adam", "梯度", "x_1", "norm", "clip", "a"]


def _document(g, n):
    """The first words are much more frequent than the last."""
    return [KNOWN[min(integer(g, 0, len(KNOWN)), integer(g, 0, len(KNOWN)))] for _ in range(n)]


def _corpus(g, n, least=1, most=14):
    return [_document(g, integer(g, least, most)) for _ in range(n)]


@exercise.cases
def bm25_cases(g):
    corpus = [["sum", "sum", "sum", "axis"], ["loss", "the", "the", *_document(g, 7)], *_corpus(g, 5), ["clip"]]
    yield case([["sum"], ["the", "clip"]], corpus, label="two queries, eight documents")
    yield case([["loss", "sum", "sum", "the", "the", "the"]], corpus, label="words that stand in the query twice")
    yield case([["sum", *words(g, 2, KNOWN)]], [["sum", "of"], *_corpus(g, 4), [], []], label="empty documents")
    yield case(
        [["the"], ["zebra", "the"], ["zebra"]],
        [["the", "the"]] * 2 + [["the", "a", "a"]],
        label="a word that is in every document, and one in none",
    )
    yield case(queries=[["Axis"], ["axis"]], documents=[["Axis", "sum"], ["axis", "axis"], ["AXIS"]], label="capitals")
    inside = [["axis", "sum"], ["a", "norm"], ["norm_1", "an", "a_1", "sum"], ["clip"]]
    yield case([["a", "sum"], ["norm"]], inside, label="words that are part of other words")
    yield case([_document(g, 3)], _corpus(g, 6), 0.6, 0.2, label="another k1 and b")
    yield case([["the", "sum"]], corpus, k1=0.0, label="k1 = 0: how often doesn't count")
    yield case([["the", "sum"]], corpus, b=0.0, label="b = 0: lengths don't count")
    yield case([["the", "sum"]], corpus, 3.0, 1.0, label="b = 1")
    yield case([[], ["the"], []], corpus, label="empty queries")
    yield case([["the"], ["a"]], [], label="no document")
    yield case([["the"], ["a"]], [[], [], []], label="only empty documents")
    yield case([], corpus[:3], label="no query")
    yield case([_document(g, 4) for _ in range(3)], _corpus(g, 90, 5, 40), label="ninety documents")


@exercise.oracle
def by_bm25s(queries, documents, k1=1.5, b=0.75):
    """bm25s with Lucene's variant. Where it has nothing to index, or nothing is asked, the scores are 0."""
    import bm25s

    scores = torch.zeros(len(queries), len(documents))
    if any(documents):
        index = bm25s.BM25(method="lucene", k1=k1, b=b)
        index.index(documents, show_progress=False)
        for row, query in zip(scores, queries, strict=True):
            if query:
                row[:] = torch.from_numpy(index.get_scores(query))
    return scores


def _asked(one):
    names = dict(zip(("queries", "documents", "k1", "b"), one.args, strict=False)) | one.kwargs
    return names["queries"], names["documents"], {key: names[key] for key in ("k1", "b") if key in names}


@exercise.law("One row a query, one column a document, floating-point")
def has_rows_and_columns(out, one, call):
    queries, documents, _ = _asked(one)
    return isinstance(out, torch.Tensor) and out.is_floating_point() and out.shape == (len(queries), len(documents))


@exercise.law("A document that shares no word with a query gets exactly 0, every other one more")
def shares_or_not(out, one, call):
    queries, documents, _ = _asked(one)
    shared = [[bool({*query} & {*document}) for document in documents] for query in queries]
    return torch.equal(out > 0, torch.tensor(shared).reshape(out.shape)) and bool((out >= 0).all())


@exercise.law("A query's score is the sum over its words")
def adds_up(out, one, call):
    queries, documents, knobs = _asked(one)
    if not queries or not documents or len(documents) > 20:
        return None
    alone = [call([[word] for word in query], documents, **knobs).sum(0) if query else out[0] * 0 for query in queries]
    return same(torch.stack(alone), out)


@exercise.law("The order of words within a document doesn't matter")
def bags_of_words(out, one, call):
    queries, documents, knobs = _asked(one)
    return same(call(queries, [document[::-1] for document in documents], **knobs), out)


def lucene(n, df):
    return math.log(1 + (n - df + 0.5) / (df + 0.5))


def saturated(tf, k1, relative):
    return tf / (tf + k1 * relative)


def _made(
    idf=lucene,
    saturation=saturated,
    length=len,
    average=lambda lengths: sum(lengths) / max(len(lengths), 1),
    frequency=lambda counts, word: sum(word in each for each in counts),
    query_words=list,
    relate=lambda length, mean: length / mean,
    clean=lambda word: word,
    finish=lambda scores: scores,
):
    """Scores in parts: idf, how a count saturates, lengths and their average, df, words asked, what is given back."""

    def bm25_scores(queries, documents, k1=1.5, b=0.75):
        documents = [[clean(word) for word in document] for document in documents]
        counts = [Counter(document) for document in documents]
        lengths = [length(document) for document in documents]
        mean = average(lengths)
        scores = torch.zeros(len(queries), len(documents))
        for i, query in enumerate(queries):
            for word in query_words([clean(word) for word in query]):
                df = frequency(counts, word)
                for j, each in enumerate(counts):
                    if each[word]:
                        relative = 1 - b + b * relate(lengths[j], mean)
                        scores[i, j] += idf(len(documents), df) * saturation(each[word], k1, relative)
        return finish(scores)

    return bm25_scores


right = _made()

exercise.mistake(
    "the factor (k1 + 1) is kept in the numerator",
    hint="It changes no ranking, so Lucene dropped it: f / (f + …), as the docstring has it.",
)(_made(saturation=lambda tf, k1, relative: tf * (k1 + 1) / (tf + k1 * relative)))

exercise.mistake("idf lacks the 1 + within the logarithm", hint="Then a word in most documents counts against them.")(
    _made(idf=lambda n, df: math.log((n - df + 0.5) / (df + 0.5)))
)

exercise.mistake("idf is log(N / n)", hint="ln(1 + (N - n + 0.5) / (n + 0.5)).")(
    _made(idf=lambda n, df: math.log(n / df))
)

exercise.mistake("idf is left out", hint="A rare word tells more than one that stands everywhere.")(
    _made(idf=lambda n, df: 1.0)
)

exercise.mistake("the logarithm is that of base 2", hint="The natural one: math.log.")(
    _made(idf=lambda n, df: math.log2(1 + (n - df + 0.5) / (df + 0.5)))
)

exercise.mistake(
    "n counts occurrences, not documents", hint="In how many documents does the word stand, once or more?"
)(_made(frequency=lambda counts, word: sum(each[word] for each in counts)))

exercise.mistake("the lengths of documents are ignored", hint="1 - b + b * length / average goes with k1.")(
    _made(saturation=lambda tf, k1, relative: tf / (tf + k1))
)

exercise.mistake("counts don't saturate", hint="f / (f + k1 …): the tenth occurrence adds less than the first.")(
    _made(saturation=lambda tf, k1, relative: tf / relative)
)

exercise.mistake("how often a word occurs is ignored", hint="f is a count, not 0 or 1.")(
    _made(saturation=lambda tf, k1, relative: 1 / (1 + k1 * relative))
)

exercise.mistake("a word that the query has twice counts once", hint="The sum goes over the query's words, each time.")(
    _made(query_words=lambda query: sorted(set(query)))
)

exercise.mistake("a document's length counts different words", hint="All its words: len(document).")(
    _made(length=lambda document: len(set(document)))
)

exercise.mistake("a document's length counts different words, the average all", hint="All its words: len(document).")(
    lambda queries, documents, k1=1.5, b=0.75: _made(
        length=lambda document: len(set(document)),
        average=lambda lengths: sum(map(len, documents)) / max(len(documents), 1),
    )(queries, documents, k1, b)
)

exercise.mistake("1 - b is left out", hint="1 - b + b * length / average goes with k1.")(
    lambda queries, documents, k1=1.5, b=0.75: _made(relate=lambda length, mean: length / mean - (1 - b) / (b or 1))(
        queries, documents, k1, b
    )
)

exercise.mistake("a document's length is in letters", hint="Its number of words: len(document).")(
    _made(length=lambda document: sum(map(len, document)))
)

exercise.mistake("the average is divided by the length", hint="length / average: long documents are held back.")(
    _made(relate=lambda length, mean: mean / length)
)

exercise.mistake("b and 1 - b are exchanged", hint="b goes with the length: 1 - b + b * length / average.")(
    lambda queries, documents, k1=1.5, b=0.75: right(queries, documents, k1, 1 - b)
)

exercise.mistake("a word is looked for within words", hint='"a" doesn\'t stand in ["axis"]: compare whole words.')(
    _made(frequency=lambda counts, word: sum(any(word in other for other in each) for each in counts))
)


@exercise.mistake("words are counted in the joined text", hint="Whole words: document.count(word) of the list.")
def bm25_in_text(queries, documents, k1=1.5, b=0.75):
    scores = torch.zeros(len(queries), len(documents))
    texts = [" ".join(document) for document in documents]
    mean = sum(map(len, documents)) / max(len(documents), 1)
    for i, query in enumerate(queries):
        for word in query:
            idf = lucene(len(documents), sum(word in text for text in texts))
            for j, text in enumerate(texts):
                if tf := text.count(word):
                    scores[i, j] += idf * saturated(tf, k1, 1 - b + b * len(documents[j]) / mean)
    return scores


exercise.mistake("the average length leaves out empty documents", hint="The mean over all documents.")(
    _made(average=lambda lengths: sum(lengths) / max(sum(map(bool, lengths)), 1))
)

exercise.mistake("words are changed to small letters", hint="Words come as they should be compared.")(
    _made(clean=str.lower)
)

exercise.mistake("the scores are scaled so that the best is 1", hint="The plain sums.")(
    _made(finish=lambda scores: scores / scores.amax(-1, keepdim=True).clamp(min=1e-9) if scores.numel() else scores)
)

exercise.mistake("rows are documents, columns are queries", hint="[len(queries), len(documents)].")(
    _made(finish=lambda scores: scores.T)
)


@exercise.mistake("k1 and b are always the defaults", hint="Use the ones that you are given.")
def bm25_own_knobs(queries, documents, k1=1.5, b=0.75):
    return right(queries, documents)


@exercise.mistake("without documents, the average divides by 0", hint="No document: a result of no columns.")
def bm25_divides(queries, documents, k1=1.5, b=0.75):
    sum(map(len, documents)) / len(documents)
    return right(queries, documents, k1, b)


@exercise.mistake("a count of 0 divided by 0 is NaN", hint="A document without the word gets 0, whatever k1 is.")
def bm25_dense(queries, documents, k1=1.5, b=0.75):
    """The whole matrix of counts at once."""
    scores = torch.zeros(len(queries), len(documents))
    lengths = torch.tensor([float(len(document)) for document in documents])
    relative = 1 - b + b * lengths / lengths.mean()
    for i, query in enumerate(queries):
        for word in query:
            tf = torch.tensor([float(document.count(word)) for document in documents])
            scores[i] += lucene(len(documents), int((tf > 0).sum())) * tf / (tf + k1 * relative)
    return scores


@exercise.mistake("only the first query is answered", hint="One row for each query.")
def bm25_first(queries, documents, k1=1.5, b=0.75):
    return right(queries[:1], documents, k1, b).expand(len(queries), len(documents))


exercise.alternative(right)


@exercise.alternative
def bm25_by_matrix(queries, documents, k1=1.5, b=0.75):
    """A matrix of counts, weighted and multiplied with the queries' counts."""
    known = {word: i for i, word in enumerate(dict.fromkeys(word for text in [*documents, *queries] for word in text))}
    counts = torch.zeros(len(documents), len(known), dtype=torch.float64)
    for i, document in enumerate(documents):
        for word in document:
            counts[i, known[word]] += 1
    length = counts.sum(1, keepdim=True)
    relative = 1 - b + b * length / length.mean().clamp(min=1e-9) if len(documents) else length
    df = (counts > 0).sum(0)
    idf = torch.log1p((len(documents) - df + 0.5) / (df + 0.5))
    weights = torch.where(counts > 0, idf * counts / (counts + k1 * relative), 0.0)
    asked = torch.zeros(len(queries), len(known), dtype=torch.float64)
    for i, query in enumerate(queries):
        for word in query:
            asked[i, known[word]] += 1
    return (asked @ weights.T).float()

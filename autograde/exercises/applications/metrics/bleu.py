"""`bleu(candidates, references, max_n=4)`: Corpus BLEU, without smoothing."""

from __future__ import annotations

import functools
import math
from collections import Counter

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.metrics.shared import edited, sentence, share

exercise = Draft(
    "bleu",
    points=4,
    forbid=["sacrebleu"],
    no_gradient="a metric: nothing is trained through it",
    rtol=1e-5,  # rounded to four decimals it is another number
    atol=1e-6,
    hints=[
        "Three steps: clipped hits and totals of each order, added up over all texts; their geometric mean; the "
        "penalty.",
        "Counter does the clipping: (grams(candidate) & best).values(), where best = grams(ref1) | grams(ref2) | … "
        "takes maxima, and & takes minima.",
        "r adds up min((len(ref) for ref in refs), key=lambda n: (abs(n - len(candidate)), n)). If any hits are 0: "
        "return 0.0. Else exp(sum of log(hits/total) / max_n) * min(1, exp(1 - r/c)).",
    ],
)


@exercise.cases
def bleu_cases(g):
    long, short = sentence(g, 14), sentence(g, 9)
    other = sentence(g, 14)
    several = [sentence(g, n) for n in (12, 8, 15)]
    close = edited(g, long, 2)
    yield case([long], [[long]], label="the reference itself")
    yield case([close], [[long]], label="two words of fourteen are wrong")
    yield case([long[:8]], [[long]], label="right, but cut short")
    yield case([long + edited(g, short, 9)], [[long]], label="right, and then more")
    yield case([sentence(g, 6, ["u", "v"]) + long[:7]], [[long[:3] + ["y"] + long[3:]]], 3, label="up to 3-grams")
    mats = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    yield case([["the"] * 7], [mats], 1, label="the the the …, single words (Papineni's example)")
    yield case(
        [several[0][:7] + several[0][:5], several[1][:6], several[2]],
        [[several[0]], [several[1], several[1][:6] + ["big"] * 4], [edited(g, several[2], 3)]],
        label="three texts, one of them with two references",
    )
    yield case(
        candidates=[long[:7] + other[:3]],
        references=[[other, long[:7], long[:13]]],
        max_n=2,
        label="references of 14, 7 and 13 tokens for a candidate of 10, by keyword",
    )
    yield case([long[:6] * 2], [[long[:6] + ["q"] * 8, ["r"] + long[:6]]], label="a phrase twice, once a reference")
    yield case(
        [long[:3], edited(g, other, 2)],
        [[long], [other]],
        label="a candidate too short for 4-grams, beside a longer one",
    )
    yield case([[], close], [[short], [long]], label="an empty candidate beside a good one")
    yield case([long[:3]], [[long]], label="nothing but a candidate too short for 4-grams")
    yield case([long[:3] + ["z"] + long[4:7] + ["z"]], [[long]], label="no 4-gram matches")
    yield case([[]], [[short]], label="nothing but an empty candidate")
    loud = [word.upper() if i in (2, 9) else word for i, word in enumerate(long)]
    yield case([loud], [[long]], label="two words in capitals")
    yield case([[*long[:7], ",", *long[7:]]], [[[*long, "."]]], label="a comma in one, a full stop in the other")
    book = sentence(g, 90)
    yield case([edited(g, book, 9)], [[book]], label="ninety words, nine of them wrong")


@exercise.oracle
def sacre_bleu(candidates, references, max_n=4):
    """Tokens as they are, nothing smoothed, a share instead of percent."""
    from sacrebleu.metrics.bleu import BLEU

    judge = BLEU(tokenize="none", smooth_method="none", effective_order=False, max_ngram_order=max_n, force=True)
    most = max(map(len, references))
    streams = [[" ".join(r[i]) if i < len(r) else None for r in references] for i in range(most)]
    return judge.corpus_score([" ".join(c) for c in candidates], streams).score / 100


@exercise.law("It is a share, from 0 to 1")
def a_share(out, one, call):
    return 0 <= float(out) <= 1 + 1e-9


def _corpus(one):
    candidates, references = one.args[:2] if one.args else (one.kwargs["candidates"], one.kwargs["references"])
    return candidates, references, one.args[2] if len(one.args) > 2 else one.kwargs.get("max_n", 4)


@exercise.law("The reference itself gets 1")
def itself_is_one(out, one, call):
    _, references, n = _corpus(one)
    fixed = [r[0] for r in references]
    return None if max(map(len, fixed)) < n else same(float(call(fixed, references, n)), 1.0)


@exercise.law("Saying a right word again finds nothing new")
def stuttering_is_punished(out, one, call):
    """A text written down ten times finds each of its words once."""
    _, references, n = _corpus(one)
    if n != 1:
        return None
    score = float(call([references[0][0] * 10], [references[0][:1]], 1))
    return same(score, 0.1) or f"a reference written down ten times gets {score:.3g} for its words, not 0.1"


@exercise.law("What is missing at the end costs exp(1 - r/c)")
def cut_is_punished(out, one, call):
    """The beginning of a reference has only right n-grams: what is left is the penalty."""
    candidates, references, n = _corpus(one)
    c, r = len(candidates[0]), len(references[0][0])
    if len(candidates) > 1 or len(references[0]) > 1 or not n <= c < r or candidates[0] != references[0][0][:c]:
        return None
    wanted = math.exp(1 - r / c)
    return same(float(out), wanted) or f"{c} right words of {r} get {float(out):.3g}, not {wanted:.3g}"


@exercise.law("Counts are added up over all texts before anything is divided")
def corpus_not_sentences(out, one, call):
    """A long and a short text: the counts are added up, whatever text they come from."""
    candidates, references, n = _corpus(one)
    if len(candidates) < 3:
        return None
    twice = call(candidates + candidates[::-1], references + references[::-1], n)
    good, poor = [f"w{i}" for i in range(12)], ["v1", "v2", "x", "y", "z"]
    both = float(call([good, poor], [[good], [["v1", "v2", "v3", "v4", "v5"]]], 2))
    return same(float(twice), float(out)) and same(both, math.sqrt(14 / 17 * 12 / 15))


def _grams(tokens, n):
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _clipped(candidate, references, n):
    most = functools.reduce(Counter.__or__, (_grams(reference, n) for reference in references))
    return sum((_grams(candidate, n) & most).values())


def _closest(length, lengths):
    return min(lengths, key=lambda r: (abs(r - length), r))


def _penalty(c, r):
    return 0.0 if c == 0 else 1.0 if c >= r else math.exp(1 - r / c)


def _geometric(counts):
    if any(hits == 0 for hits, _ in counts):
        return 0.0
    return math.exp(sum(math.log(hits / total) for hits, total in counts) / len(counts))


def _total(candidate, references, n):
    return max(len(candidate) - n + 1, 0)


def _bleu(matches=_clipped, out_of=_total, mean=_geometric, penalty=_penalty, length=_closest, orders=None):
    def bleu(candidates, references, max_n=4):
        pairs = list(zip(candidates, references, strict=True))
        counts = [
            (sum(matches(c, r, n) for c, r in pairs), sum(out_of(c, r, n) for c, r in pairs))
            for n in (orders(max_n) if orders else range(1, max_n + 1))
        ]
        ours = sum(map(len, candidates))
        theirs = sum(length(len(c), [len(one) for one in r]) for c, r in pairs)
        return mean(counts) * penalty(ours, theirs)

    return bleu


def _any_reference(candidate, references, n):
    """Without clipping: every n-gram that stands in a reference counts as often as the candidate has it."""
    known = set().union(*(_grams(reference, n) for reference in references))
    return sum(times for gram, times in _grams(candidate, n).items() if gram in known)


exercise.mistake(
    "n-grams aren't clipped",
    hint="'the the the' must not be perfect: an n-gram counts at most as often as one reference has it.",
)(_bleu(matches=_any_reference))


def _clipped_by_sum(candidate, references, n):
    summed = sum((_grams(reference, n) for reference in references), Counter())
    return sum((_grams(candidate, n) & summed).values())


exercise.mistake("clipping adds up the references", hint="The most in any *one* reference: a maximum, not a sum.")(
    _bleu(matches=_clipped_by_sum)
)

exercise.mistake("only the first reference is read", hint="All references of a text help: take the maximum over them.")(
    _bleu(matches=lambda c, r, n: _clipped(c, r[:1], n), length=lambda n, lengths: lengths[0])
)

exercise.mistake(
    "matches are divided by the n-grams of the reference",
    hint="BLEU is precision: divide by the candidate's n-grams. What is missing is the penalty's job.",
)(_bleu(out_of=lambda c, r, n: max(_closest(len(c), list(map(len, r))) - n + 1, 0)))

exercise.mistake(
    "the precisions are averaged arithmetically",
    hint="The geometric mean: exp of the mean of the logarithms. One 0 makes it 0.",
)(_bleu(mean=lambda counts: sum(share(h, t) for h, t in counts) / len(counts)))

exercise.mistake(
    "the precisions are multiplied, without the root",
    hint="The geometric mean of max_n numbers takes their max_n-th root.",
)(_bleu(mean=lambda counts: math.prod(share(h, t) for h, t in counts)))

exercise.mistake(
    "the n-grams of all orders go into one precision", hint="One precision an order, then their geometric mean."
)(_bleu(mean=lambda counts: share(sum(h for h, _ in counts), sum(t for _, t in counts))))


def _add_one(counts):
    return math.exp(sum(math.log((h + 1) / (t + 1)) for h, t in counts) / len(counts))


exercise.mistake(
    "one is added to hits and totals",
    hint="A smoothing for single sentences (Lin and Och 2004, from pairs up). Here nothing is smoothed.",
)(_bleu(mean=_add_one))


def _without_zeros(counts):
    found = [(h, t) for h, t in counts if h]
    return _geometric(found) if found else 0.0


exercise.mistake("orders without a match are left out", hint="If an order has no match, BLEU is 0.")(
    _bleu(mean=_without_zeros)
)

exercise.mistake("only single words count", hint="All orders from 1 to max_n.")(_bleu(orders=lambda max_n: [1]))

exercise.mistake(
    "empty texts are left out", hint="An empty candidate adds nothing to c, and its reference's length to r."
)(
    lambda candidates, references, max_n=4: bleu_right(
        [text for text in candidates if text] or [[]],
        [some for text, some in zip(candidates, references, strict=True) if text] or references[:1],
        max_n,
    )
)

exercise.mistake("max_n is ignored", hint="Use max_n, not 4.")(_bleu(orders=lambda max_n: range(1, 5)))

bleu_without_penalty = exercise.mistake(
    "the brevity penalty is missing", hint="One sure word would get a perfect score. Multiply by exp(1 - r/c) if c < r."
)(_bleu(penalty=lambda c, r: 1.0))

exercise.mistake(
    "long candidates are punished instead of short ones",
    hint="Too many words already cost precision. The penalty is for c < r.",
)(_bleu(penalty=lambda c, r: 1.0 if c <= r else math.exp(1 - c / r)))

exercise.mistake(
    "exp(1 - r/c) rewards candidates longer than the reference", hint="It is at most 1: if c >= r there is no penalty."
)(_bleu(penalty=lambda c, r: math.exp(1 - r / c) if c else 0.0))

exercise.mistake("the penalty is the ratio c/r", hint="exp(1 - r/c), which falls faster.")(
    _bleu(penalty=lambda c, r: min(1.0, share(c, r)))
)

exercise.mistake(
    "r is the longest reference", hint="Of each text, the reference whose length is closest to the candidate's."
)(_bleu(length=lambda n, lengths: max(lengths)))

exercise.mistake(
    "r is the shortest reference", hint="NIST's first script did so. Here it is the closest length, as in the paper."
)(_bleu(length=lambda n, lengths: min(lengths)))

exercise.mistake(
    "of two equally close references the longer one counts", hint="The shorter one: min over (distance, length)."
)(_bleu(length=lambda n, lengths: min(lengths, key=lambda r: (abs(r - n), -r))))

bleu_right = _bleu()


@exercise.mistake(
    "every text gets a BLEU of its own, and these are averaged",
    hint="Add up hits, totals and lengths over all texts, and compute once.",
)
def bleu_of_sentences(candidates, references, max_n=4):
    scores = [bleu_right([c], [r], max_n) for c, r in zip(candidates, references, strict=True)]
    return sum(scores) / len(scores)


@exercise.mistake(
    "n-grams longer than the shortest candidate are left out",
    hint="All max_n precisions count. A text without n-grams of some length adds none, and that is all.",
)
def bleu_as_short_as_the_shortest(candidates, references, max_n=4):
    return bleu_right(candidates, references, max(1, min([max_n, *map(len, candidates)])))


@exercise.mistake(
    "every text gets a brevity penalty of its own",
    hint="Add up c and r over all texts first: a short answer may be made up for by a long one.",
)
def bleu_penalty_by_sentence(candidates, references, max_n=4):
    """The precisions of the corpus, times the mean of the sentences' own penalties."""
    free = bleu_without_penalty(candidates, references, max_n)
    each = [
        _penalty(len(c), _closest(len(c), [len(one) for one in r])) for c, r in zip(candidates, references, strict=True)
    ]
    return free * sum(each) / len(each)


@exercise.mistake("capitals are changed to small letters", hint="Tokens are compared as they are.")
def bleu_of_small_letters(candidates, references, max_n=4):
    small = [[word.lower() for word in text] for text in candidates]
    return bleu_right(small, [[[word.lower() for word in one] for one in some] for some in references], max_n)


@exercise.mistake("commas and full stops are left out", hint="Tokens are compared as they are, all of them.")
def bleu_of_words(candidates, references, max_n=4):
    words = [[word for word in text if word not in ",."] for text in candidates]
    return bleu_right(
        words, [[[word for word in one if word not in ",."] for one in some] for some in references], max_n
    )


@exercise.mistake(
    "the best single reference counts", hint="An n-gram is clipped to the most in any of them, order by order."
)
def bleu_of_best_reference(candidates, references, max_n=4):
    most = max(map(len, references))
    return max(bleu_right(candidates, [[some[i % len(some)]] for some in references], max_n) for i in range(most))


@exercise.mistake("it is given in percent", hint="From 0 to 1 here.")
def bleu_in_percent(candidates, references, max_n=4):
    return 100 * bleu_right(candidates, references, max_n)


exercise.alternative(bleu_right)


@exercise.alternative
def bleu_by_loop(candidates, references, max_n=4):
    score, ours, theirs = 1.0, 0, 0
    for candidate, options in zip(candidates, references, strict=True):
        ours += len(candidate)
        theirs += sorted((abs(len(r) - len(candidate)), len(r)) for r in options)[0][1]
    for n in range(1, max_n + 1):
        hits = total = 0
        for candidate, options in zip(candidates, references, strict=True):
            grams = [" ".join(candidate[i : i + n]) for i in range(len(candidate) - n + 1)]
            total += len(grams)
            for gram in set(grams):
                there = [[" ".join(r[i : i + n]) for i in range(len(r) - n + 1)].count(gram) for r in options]
                hits += min(grams.count(gram), max(there))
        if not hits:
            return 0.0
        score *= (hits / total) ** (1 / max_n)
    return score * min(1.0, math.exp(1 - theirs / ours))

"""Wrong BLEU and ROUGE-L, as complete implementations, and a few right ones that look different."""

from __future__ import annotations

import functools
import math
from collections import Counter
from difflib import SequenceMatcher

# ---- bleu: one implementation whose every step can be replaced ------------------------------------------------------

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
        counts = [(sum(matches(c, r, n) for c, r in pairs), sum(out_of(c, r, n) for c, r in pairs))
                  for n in (orders(max_n) if orders else range(1, max_n + 1))]
        ours = sum(map(len, candidates))
        theirs = sum(length(len(c), [len(one) for one in r]) for c, r in pairs)
        return mean(counts) * penalty(ours, theirs)
    return bleu


def _share(hits, total):
    return hits / total if total else 0.0


def _any_reference(candidate, references, n):
    """Without clipping: every n-gram that stands in a reference counts as often as the candidate has it."""
    known = set().union(*(_grams(reference, n) for reference in references))
    return sum(times for gram, times in _grams(candidate, n).items() if gram in known)


def _clipped_by_sum(candidate, references, n):
    summed = sum((_grams(reference, n) for reference in references), Counter())
    return sum((_grams(candidate, n) & summed).values())


def _add_one(counts):
    return math.exp(sum(math.log((h + 1) / (t + 1)) for h, t in counts) / len(counts))


def _without_zeros(counts):
    found = [(h, t) for h, t in counts if h]
    return _geometric(found) if found else 0.0


bleu_right = _bleu()
bleu_unclipped = _bleu(matches=_any_reference)
bleu_clipped_by_sum = _bleu(matches=_clipped_by_sum)
bleu_first_reference = _bleu(matches=lambda c, r, n: _clipped(c, r[:1], n), length=lambda n, lengths: lengths[0])
bleu_recall = _bleu(out_of=lambda c, r, n: max(_closest(len(c), list(map(len, r))) - n + 1, 0))
bleu_arithmetic = _bleu(mean=lambda counts: sum(_share(h, t) for h, t in counts) / len(counts))
bleu_product = _bleu(mean=lambda counts: math.prod(_share(h, t) for h, t in counts))
bleu_pooled = _bleu(mean=lambda counts: _share(sum(h for h, _ in counts), sum(t for _, t in counts)))
bleu_add_one = _bleu(mean=_add_one)
bleu_skips_zeros = _bleu(mean=_without_zeros)
bleu_words_only = _bleu(orders=lambda max_n: [1])
bleu_always_four = _bleu(orders=lambda max_n: range(1, 5))
bleu_without_penalty = _bleu(penalty=lambda c, r: 1.0)
bleu_penalty_turned = _bleu(penalty=lambda c, r: 1.0 if c <= r else math.exp(1 - c / r))
bleu_penalty_both_ways = _bleu(penalty=lambda c, r: math.exp(1 - r / c) if c else 0.0)
bleu_penalty_is_ratio = _bleu(penalty=lambda c, r: min(1.0, _share(c, r)))
bleu_longest_reference = _bleu(length=lambda n, lengths: max(lengths))
bleu_shortest_reference = _bleu(length=lambda n, lengths: min(lengths))
bleu_longer_of_ties = _bleu(length=lambda n, lengths: min(lengths, key=lambda r: (abs(r - n), -r)))


def bleu_of_sentences(candidates, references, max_n=4):
    scores = [bleu_right([c], [r], max_n) for c, r in zip(candidates, references, strict=True)]
    return sum(scores) / len(scores)


def bleu_penalty_by_sentence(candidates, references, max_n=4):
    """The precisions of the corpus, times the mean of the sentences' own penalties."""
    free = bleu_without_penalty(candidates, references, max_n)
    each = [_penalty(len(c), _closest(len(c), [len(one) for one in r]))
            for c, r in zip(candidates, references, strict=True)]
    return free * sum(each) / len(each)


def bleu_as_short_as_the_shortest(candidates, references, max_n=4):
    return bleu_right(candidates, references, max(1, min([max_n, *map(len, candidates)])))


def bleu_in_percent(candidates, references, max_n=4):
    return 100 * bleu_right(candidates, references, max_n)


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


# ---- rouge_l --------------------------------------------------------------------------------------------------------

def _common(a, b):
    """The length of the longest common subsequence, by the table."""
    above = [0] * (len(b) + 1)
    for x in a:
        row = [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
        above = row
    return above[-1]


def _harmonic(p, r):
    return 2 * p * r / (p + r) if p + r else 0.0


def _rouge(common=_common, f=_harmonic, order=lambda p, r: (p, r)):
    def rouge_l(candidate, reference):
        found = common(candidate, reference)
        p, r = order(_share(found, len(candidate)), _share(found, len(reference)))
        return p, r, f(p, r)
    return rouge_l


def _substring(a, b):
    return SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size


def _greedy(a, b):
    """Walks through a and takes the next place in b where the token stands."""
    found, place = 0, 0
    for x in a:
        if x in b[place:]:
            place, found = b.index(x, place) + 1, found + 1
    return found


def _without_padding(a, b):
    """The table begins with the first pair: a match in the first row or column finds nothing above it."""
    table = [[0] * len(b) for _ in a]
    for i in range(1, len(a)):
        for j in range(1, len(b)):
            table[i][j] = (table[i - 1][j - 1] + 1 if a[i] == b[j] else max(table[i - 1][j], table[i][j - 1]))
    return table[-1][-1] if a and b else 0


def _either_way(a, b):
    """A match takes the larger neighbour plus one, instead of the diagonal one."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = max(table[i][j + 1], table[i + 1][j]) + (x == y)
    return table[-1][-1]


rouge_right = _rouge()
rouge_substring = _rouge(_substring)
rouge_bag = _rouge(lambda a, b: sum((Counter(a) & Counter(b)).values()))
rouge_set = _rouge(lambda a, b: len(set(a) & set(b)))
rouge_greedy = _rouge(_greedy)
rouge_without_padding = _rouge(_without_padding)
rouge_matches_twice = _rouge(_either_way)
rouge_same_place = _rouge(lambda a, b: sum(x == y for x, y in zip(a, b, strict=False)))
rouge_exchanged = _rouge(order=lambda p, r: (r, p))
rouge_arithmetic = _rouge(f=lambda p, r: (p + r) / 2)
rouge_recall_weighted = _rouge(f=lambda p, r: (1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p + r else 0.0)
rouge_f_is_recall = _rouge(f=lambda p, r: r)


def rouge_divides_by_zero(candidate, reference):
    found = _common(candidate, reference)
    p, r = found / len(candidate), found / len(reference)
    return p, r, 2 * p * r / (p + r)


def rouge_empty_is_one(candidate, reference):
    return (1.0, 1.0, 1.0) if not candidate and not reference else rouge_right(candidate, reference)


def rouge_of_letters(candidate, reference):
    return rouge_right(list("".join(candidate)), list("".join(reference)))


def rouge_lower_case(candidate, reference):
    return rouge_right([t.lower() for t in candidate], [t.lower() for t in reference])


def rouge_recursive(candidate, reference):
    @functools.cache
    def common(i, j):
        if i == len(candidate) or j == len(reference):
            return 0
        if candidate[i] == reference[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))
    found = common(0, 0)
    if not found:
        return [0, 0, 0]
    return [found / len(candidate), found / len(reference), 2 * found / (len(candidate) + len(reference))]

"""Wrong byte-pair encodings, and a few right ones that look different."""

from __future__ import annotations

import re
from collections import Counter, defaultdict


def _words(text, pattern):
    return Counter(tuple(word.encode()) for word in re.findall(pattern, text))


def _count(words):
    counts = Counter()
    for word, times in words.items():
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += times
    return counts


def _smallest_of_the_most(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


def _joined(word, pair, new):
    """The word with every occurrence of the pair replaced, from the left."""
    out, i = [], 0
    while i < len(word):
        found = word[i : i + 2] == pair
        out.append(new if found else word[i])
        i += 2 if found else 1
    return tuple(out)


def _bpe(split=_words, count=_count, choose=_smallest_of_the_most, join=_joined, first=256, least=1):
    """A trainer in parts: the words, the counts, the choice, the replacement, the first new id."""

    def train(text, n_merges, pattern):
        words, merges = split(text, pattern), []
        while len(merges) < n_merges:
            counts = count(words)
            if not counts or max(counts.values()) < least:
                break
            pair = choose(counts)
            renewed = Counter()
            for word, times in words.items():
                renewed[join(word, pair, first + len(merges))] += times
            words = renewed
            merges.append(pair)
        return merges

    return train


def _by_likelihood(counts):
    """WordPiece's score: how much more often together than apart."""
    left, right = Counter(), Counter()
    for (a, b), times in counts.items():
        left[a] += times
        right[b] += times
    return min(counts, key=lambda pair: (-counts[pair] / (left[pair[0]] * right[pair[1]]), pair))


def _apart(words):
    """Counts in which pairs don't overlap: one (z, z) in zzz."""
    counts = Counter()
    for word, times in words.items():
        last = None
        for i, pair in enumerate(zip(word, word[1:], strict=False)):
            if last != (i - 1, pair):
                counts[pair] += times
                last = i, pair
    return counts


def _joined_once(word, pair, new):
    for i in range(len(word) - 1):
        if word[i : i + 2] == pair:
            return word[:i] + (new,) + word[i + 2 :]
    return word


def _joined_from_the_right(word, pair, new):
    return _joined(word[::-1], pair[::-1], new)[::-1]


bpe = _bpe()
bpe_first_seen = _bpe(choose=lambda counts: max(counts, key=counts.get))
bpe_largest_pair = _bpe(choose=lambda counts: max(counts, key=lambda pair: (counts[pair], pair)))
bpe_rarest = _bpe(choose=lambda counts: min(counts, key=lambda pair: (counts[pair], pair)))
bpe_by_likelihood = _bpe(choose=_by_likelihood)
bpe_distinct_words = _bpe(count=lambda words: _count(dict.fromkeys(words, 1)))
bpe_apart = _bpe(count=_apart)
bpe_across_words = _bpe(split=lambda text, pattern: Counter([tuple(text.encode())]))
bpe_of_letters = _bpe(split=lambda text, pattern: Counter(tuple(map(ord, w)) for w in re.findall(pattern, text)))
bpe_lower_case = _bpe(split=lambda text, pattern: _words(text.lower(), pattern))
bpe_without_spaces = _bpe(split=lambda text, pattern: Counter(tuple(word.encode()) for word in text.split()))
bpe_end_of_word = _bpe(
    split=lambda text, pattern: Counter({(*word, 256): times for word, times in _words(text, pattern).items()}),
    first=257,
)
bpe_joined_once = _bpe(join=_joined_once)
bpe_from_the_right = _bpe(join=_joined_from_the_right)
bpe_never_joined = _bpe(join=lambda word, pair, new: word)
bpe_numbered_from_257 = _bpe(first=257)
bpe_twice_at_least = _bpe(least=2)


def bpe_counted_once(text, n_merges, pattern):
    """The most frequent pairs of bytes, all from one count."""
    counts = _count(_words(text, pattern))
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:n_merges]


def bpe_vocabulary_size(text, n_merges, pattern):
    return bpe(text, max(0, n_merges - 256), pattern)


def bpe_newest_first(text, n_merges, pattern):
    return bpe(text, n_merges, pattern)[::-1]


def bpe_as_bytes(text, n_merges, pattern):
    """The parts as byte strings instead of ids."""
    known, told = [bytes([byte]) for byte in range(256)], []
    for left, right in bpe(text, n_merges, pattern):
        told.append((known[left], known[right]))
        known.append(known[left] + known[right])
    return told


def bpe_updated(text, n_merges, pattern):
    """Counts are kept up to date: only words that hold the pair are looked at again."""
    words = [[list(word), times] for word, times in _words(text, pattern).items()]
    counts, where = Counter(), defaultdict(set)

    def note(i, sign):
        word, times = words[i]
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += sign * times
            where[pair].add(i)

    for i in range(len(words)):
        note(i, +1)
    merges = []
    for new in range(256, 256 + n_merges):
        most = max(counts.values(), default=0)
        if most == 0:
            break
        pair = min(pair for pair, times in counts.items() if times == most)
        for i in list(where[pair]):
            note(i, -1)
            words[i][0] = list(_joined(tuple(words[i][0]), pair, new))
            note(i, +1)
        merges.append(list(pair))
    return merges


def bpe_by_replacing(text, n_merges, pattern):
    """Every id is one letter of a string, so that str.replace joins."""
    words = Counter("".join(map(chr, word.encode())) for word in re.findall(pattern, text))
    merges = []
    for new in range(256, 256 + n_merges):
        counts = Counter()
        for word, times in words.items():
            for i in range(len(word) - 1):
                counts[ord(word[i]), ord(word[i + 1])] += times
        if not counts:
            return merges
        pair = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[0][0]
        merges.append(pair)
        old, renewed = chr(pair[0]) + chr(pair[1]), Counter()
        for word, times in words.items():
            renewed[word.replace(old, chr(new))] += times
        words = renewed
    return merges

"""`groundedness(answer, source, stop=())`: How well the source supports each sentence of an answer, by words."""

from __future__ import annotations

import re

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.hallucination.shared import shuffled
from autograde.exercises.shared import pick

exercise = Draft(
    "groundedness",
    points=3,
    no_gradient="words are compared: nothing is trained through it",
    rtol=1e-5,  # 0.3333 is not a third
    atol=1e-6,
    forbid=["sklearn"],
    hints=[
        "An answer is a list of sentences, and each is checked alone. With what does one sentence of it compare?",
        "re.split(r'(?<=[.!?])\\s+', text.strip()) cuts; set(re.findall(r'\\w+', part.lower())) - set(stop) are words.",
        "max(len(words & given) / len(words) for given in the source's sentences); 1.0 without words; 0.0 for a number "
        "that stands nowhere in the source.",
    ],
)

NOUNS = ("tower", "bridge", "river", "museum", "harbor", "station", "garden", "castle", "market", "theater", "mill")
VERBS = ("opened", "closed", "burned", "moved", "flooded", "sank")
PLACES = ("Bern", "Oslo", "Lima", "Quito", "Rabat", "Suva")
STOP = ["the", "in", "of", "a", "it", "is", "was", "and"]


def _told(g, count):
    """Sentences that share no word but those of STOP."""
    subjects, did, places = shuffled(g, NOUNS), shuffled(g, VERBS), shuffled(g, PLACES)
    return [f"The {subjects[i]} in {places[i]} {did[i]} in {1800 + 37 * i + pick(g, 0, 30)}." for i in range(count)]


@exercise.cases
def answers(g):
    one, two, three, four = _told(g, 4)
    other = _told(g, 1)[0].replace(".", "") + f" {pick(g, 2100, 2200)}."
    words = two[:-1].split()
    yield case(f"{one} {three}", f"{two} {one} {three}", STOP, label="two sentences of the source")
    mixed = f"The {words[1]} in {one.split()[3]} {three.split()[4]}."
    yield case(mixed, f"{one} {two} {three}", STOP, label="words of three sentences, put together")
    yield case(f"{one[:-1]} and a {words[1]} {words[4]}. {four}", f"{one} {two}", STOP, label="half supported")
    yield case(one.replace("18", "19").replace("The", "In"), one, STOP, label="another year")
    yield case(
        f"{one.split()[1]} {one.split()[3]} {two.split()[-1]}",
        f"{one} {two}",
        STOP,
        label="a number of another sentence",
    )
    yield case(one.upper(), f"{three} {one.lower()}", STOP, label="capital letters")
    yield case(f"It is. {two} Was it?", f"{one} {two}", STOP, label="sentences that hold stop words alone")
    yield case(f"{one}", f"{one[:-1]} again, {two}", label="no stop words")
    yield case("", f"{one} {two}", STOP, label="no answer")
    bare = " ".join(word for word in one.split() if word[0].isalpha())
    yield case(f"{bare}. It is.", " \n", STOP, label="no source, and no number in the answer")
    yield case(f"{one} It is.", "", STOP, label="no source")
    yield case(f"  {one}\n{two}  {three}", f"{three}\n\n{one}", STOP, label="line breaks")
    yield case(
        f"The {words[1]} {words[1]} {words[1]} {words[1]} {words[4]} thrice",
        f"A {words[1]} is.",
        STOP,
        label="a word again",
    )
    yield case(
        "It cost 3.5 million!Really? Yes.", "In 3.5 years it cost a million.", ["it", "in", "a"], label="a decimal"
    )
    year = pick(g, 11, 19)
    within = f"It has room {year}. It is on floor b{year}. It is on floor b7 in {year}77."
    yield case(within, f"It is on floor b7. It opened in {year}77, and has room 9.", STOP, label="parts of numbers")
    yield case("The cat cats catalog", "A cat. Two cats.", ["the"], label="words within words")
    yield case("Élan in Zürich, 東京 2020", "Zürich has élan. 東京 hosted 2020.", ["in"], label="letters beyond ASCII")
    yield case(f"{other} {one}", " ".join(_told(g, 5)), stop=STOP, label="stop words by keyword")


def sentences(text):
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


@exercise.oracle
def sklearn_counts(answer, source, stop=()):
    """Which words stand in which sentence, by scikit-learn's CountVectorizer."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    said, given = sentences(answer), sentences(source) or [""]
    if not said:
        return []
    read = CountVectorizer(binary=True, token_pattern=r"(?u)\w+", stop_words=list(stop) or None)
    try:
        table = read.fit_transform([*said, *given]).toarray()
    except ValueError:  # nothing but stop words
        return [1.0] * len(said)
    mine, theirs = table[: len(said)], table[len(said) :]
    numbers = np.array([any(c.isdigit() for c in word) for word in read.get_feature_names_out()])
    unfounded = (mine[:, numbers] * (theirs.max(0)[numbers] == 0)).any(1)
    best, sizes = (mine @ theirs.T).max(1), mine.sum(1)
    return [1.0 if n == 0 else 0.0 if bad else float(b / n) for n, bad, b in zip(sizes, unfounded, best, strict=True)]


@exercise.law("The source supports itself")
def supports_itself(out, one, call):
    source, *rest = one.args[1:]
    return all(same(float(x), 1.0) for x in call(source, source, *rest, **one.kwargs))


@exercise.law("Another sentence in the answer changes nothing for the others")
def each_alone(out, one, call):
    answer, source, *rest = one.args
    if not answer.strip() or answer.strip()[-1] not in ".!?":
        return None
    again = call(f"Qwx vbn 123. {answer}", source, *rest, **one.kwargs)
    return same([float(x) for x in again], [0.0, *(float(x) for x in out)])


def _words(text, stop):
    return set(re.findall(r"\w+", text.lower())) - set(stop)


def _has_digit(word):
    return any(c.isdigit() for c in word)


def _support(
    split=sentences,
    words=_words,
    pool=None,
    empty=1.0,
    numbers="nowhere",
    count=None,
    end=lambda x: x,
    figure=_has_digit,
    within=False,
):
    """`groundedness` in parts."""

    def groundedness(answer, source, stop=()):
        given = [words(part, stop) for part in (split(source) if pool is None else pool(source))]
        found = []
        for part in split(answer):
            mine = words(part, stop)
            everything = set().union(*given)
            figures = {word for word in mine if figure(word)}
            unfounded = {w for w in figures if w not in source} if within else figures - everything
            shares = [len(mine & each) / len(mine) if count is None else count(mine, each) for each in given if mine]
            if not mine:
                found.append(empty)
            elif numbers == "nowhere" and unfounded:
                found.append(0.0)
            elif numbers == "sentence":
                held = [x for x, each in zip(shares, given, strict=True) if figures <= each]
                found.append(max(held, default=0.0))
            else:
                found.append(max(shares, default=0.0))
        return end(found)

    return groundedness


exercise.mistake(
    "a sentence is held against the whole source at once",
    hint="Words of three sentences, put together, may say what none of them does: take the best single sentence.",
)(_support(pool=lambda source: [source]))
exercise.mistake("numbers are words like others", hint="A number that stands nowhere in the source: support 0.")(
    _support(numbers="ignored")
)
exercise.mistake(
    "a number has to stand in the very sentence that supports", hint="Anywhere in the source is enough for a number."
)(_support(numbers="sentence"))
exercise.mistake("stop words count", hint="'the' stands in any source: take the words of stop out, on both sides.")(
    _support(words=lambda text, stop: set(re.findall(r"\w+", text.lower())))
)
exercise.mistake("capital letters make another word", hint="lower() both.")(
    _support(words=lambda text, stop: set(re.findall(r"\w+", text)) - set(stop))
)
exercise.mistake("punctuation stays at the words", hint=r"re.findall(r'\w+', …) finds words, split() doesn't.")(
    _support(words=lambda text, stop: set(text.lower().split()) - set(stop))
)
exercise.mistake("digits make no words", hint=r"\w also matches digits: a number is a word.")(
    _support(words=lambda text, stop: set(re.findall(r"[^\W\d]+", text.lower())) - set(stop))
)
exercise.mistake("only the letters a to z make words", hint=r"\w also matches é, 東 and digits.")(
    _support(words=lambda text, stop: set(re.findall(r"[a-z0-9]+", text.lower())) - set(stop))
)
exercise.mistake("a sentence without content words gets 0", hint="What states nothing needs no support: 1.0.")(
    _support(empty=0.0)
)
exercise.mistake("without a source everything is supported", hint="No sentence of it: what has words gets 0.0.")(
    lambda answer, source, stop=(): [1.0 if not source.strip() else x for x in _support()(answer, source, stop)]
)
exercise.mistake(
    "the share is of the union of the words (Jaccard)", hint="A long source is no fault: of *its own* words."
)(_support(count=lambda mine, each: len(mine & each) / len(mine | each)))
exercise.mistake(
    "the share is of the source's words", hint="Of the answer's sentence: how many of *its* words stand there?"
)(_support(count=lambda mine, each: len(mine & each) / max(1, len(each))))
exercise.mistake("the answer's mean comes back", hint="One number a sentence: the worst one is what you look for.")(
    _support(end=lambda found: sum(found) / len(found) if found else 0.0)
)
exercise.mistake("the answer isn't cut into sentences", hint="Each sentence of the answer is checked alone.")(
    lambda answer, source, stop=(): _support(split=lambda text: [text] if text.strip() else [], pool=sentences)(
        answer, source, stop
    )
)
exercise.mistake("sentences are cut at every point", hint="3.5 isn't two sentences: white space follows an end.")(
    _support(split=lambda text: [part for part in re.split(r"[.!?]", text) if part.strip()])
)


exercise.mistake("a number counts if it stands within another one", hint="19 isn't in 1998: compare whole words.")(
    _support(within=True)
)
exercise.mistake("only words of nothing but digits are numbers", hint="'b19' and '3rd' hold a digit, too.")(
    _support(figure=str.isdigit)
)


@exercise.mistake("the source's sentences are averaged", hint="One sentence that says it is enough: the largest share.")
def averaged(answer, source, stop=()):
    given, found = [_words(part, stop) for part in sentences(source)], []
    for part in sentences(answer):
        mine = _words(part, stop)
        if any(any(c.isdigit() for c in word) for word in mine - set().union(*given)):
            found.append(0.0)
        else:
            found.append(sum(len(mine & each) / len(mine) for each in given) / max(1, len(given)) if mine else 1.0)
    return found


@exercise.mistake("a word that comes again counts again", hint="Distinct words: a set.")
def with_repeats(answer, source, stop=()):
    given = [_words(part, stop) for part in sentences(source)]
    everything, found = set().union(*given), []
    for part in sentences(answer):
        mine = [word for word in re.findall(r"\w+", part.lower()) if word not in set(stop)]
        if any(any(c.isdigit() for c in word) and word not in everything for word in mine):
            found.append(0.0)
        else:
            found.append(
                max((sum(w in each for w in mine) / len(mine) for each in given), default=0.0) if mine else 1.0
            )
    return found


@exercise.mistake(
    "a word counts if it stands within another one", hint="'cat' isn't in 'catalog': compare whole words."
)
def within_words(answer, source, stop=()):
    given, found = [part.lower() for part in sentences(source)], []
    for part in sentences(answer):
        mine = _words(part, stop)
        if any(any(c.isdigit() for c in word) and word not in source.lower() for word in mine):
            found.append(0.0)
        else:
            found.append(max((sum(w in g for w in mine) / len(mine) for g in given), default=0.0) if mine else 1.0)
    return found


exercise.alternative(_support())


@exercise.alternative
def by_counting(answer, source, stop=()):
    stop, found = frozenset(stop), []
    table = [{m.group() for m in re.finditer(r"\w+", s.lower())} for s in re.split(r"(?<=[.!?])\s+", source)]
    for sentence in filter(None, re.split(r"(?<=[.!?])\s+", answer.strip())):
        words = [w for w in dict.fromkeys(re.findall(r"\w+", sentence.lower())) if w not in stop]
        score = 1.0
        if words:
            score = max(sum(w in row for w in words) for row in table) / len(words)
        if any(re.search(r"\d", w) and not any(w in row for row in table) for w in words):
            score = 0.0
        found.append(score)
    return tuple(found)

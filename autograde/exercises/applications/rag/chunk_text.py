"""`chunk_text(text, size, overlap=0)`: Cut a text into pieces of at most `size` words that share `overlap` of them."""

from __future__ import annotations

import re

from autograde.exercise import Draft, case
from autograde.exercises.applications.rag.shared import words
from autograde.exercises.shared import integer

exercise = Draft(
    "chunk_text",
    points=2,
    no_gradient="texts are no numbers",
    forbid=["tokenizers", "transformers"],
    hints=[
        "Where does each word begin and end in the text? A piece is text[first word's beginning : last word's end].",
        "Pieces begin at the words 0, size - overlap, 2 (size - overlap) …; the one that reaches the last word is the "
        "last.",
        "`spans = [m.span() for m in re.finditer(r'\\S+', text)]`; start at 0, append "
        "`text[spans[start][0] : spans[min(start + size, n) - 1][1]]`, stop if `start + size >= n`.",
    ],
)


def _text(g, n):
    """Words parted by all kinds of white space."""
    gaps = [" ", " ", "  ", "\n", "\n\n", "\t", " \n "]
    return "".join(word + gaps[integer(g, 0, len(gaps))] for word in words(g, n)).rstrip()


@exercise.cases
def chunk_cases(g):
    size = integer(g, 4, 7)
    yield case(_text(g, 3 * size + 2), size, label="no overlap, the last piece is shorter")
    yield case(_text(g, 17), size, 2, label="two words shared")
    yield case(_text(g, 3 * size), size, label="the pieces come out even")
    yield case(_text(g, 12), 6, overlap=3, label="the last piece would hold nothing new")
    yield case(_text(g, 9), 4, overlap=3, label="all words but one are shared")
    yield case(f"\n  {_text(g, 8)} \n", size=3, overlap=1, label="white space around the text")
    yield case(_text(g, 5), 9, 4, label="fewer words than a piece")
    yield case(_text(g, 5), 5, 2, label="exactly one piece")
    yield case(_text(g, 4), 1, label="one word a piece")
    a, b, c, d, e = words(g, 5)
    rare = f"{a}\r\n{b}\u00a0{c}\u3000{d}\f{e}"
    yield case(rare, 2, 1, label="white space beyond spaces, tabs and line feeds")
    yield case("", 3, label="an empty text")
    yield case(" \n ", 3, 1, label="white space alone")
    yield case(_text(g, 400), 37, 5, label="four hundred words")
    yield case(_text(g, 6), 3, 3, label="overlap as large as the piece: an error")
    yield case(_text(g, 6), 3, 5, label="overlap larger than the piece: an error")
    yield case(_text(g, 6), 3, -1, label="a negative overlap: an error")
    yield case(_text(g, 6), 0, label="pieces of no words: an error")
    yield case("", 0, label="pieces of no words, of an empty text: an error")


@exercise.probe
def pieces(chunk_text, text, size, *overlap, **named):
    """The pieces, or the word that a ValueError was raised."""
    try:
        return chunk_text(text, size, *overlap, **named)
    except ValueError:
        return "ValueError"


@exercise.oracle
def truncated(text, size, overlap=0):
    """The tokenizers library cuts long texts so, with its `stride`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if size < 1 or not 0 <= overlap < size:
        return "ValueError"
    tokenizer = Tokenizer(models.WordLevel({"word": 0}, unk_token="word"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(max_length=size, stride=overlap)
    found = tokenizer.encode(text)
    places = [piece.offsets for piece in [found, *found.overflowing] if piece.offsets]
    return [text[place[0][0] : place[-1][1]] for place in places]


def _asked(one):
    names = dict(zip(("text", "size", "overlap"), one.args, strict=False)) | one.kwargs
    return names["text"], names["size"], names.get("overlap", 0)


@exercise.law("Every piece stands in the text, letter by letter, without white space at its ends")
def stands_in_the_text(out, one, call):
    if out == "ValueError":
        return None
    text = _asked(one)[0]
    lost = next((piece for piece in out if piece not in text or piece != piece.strip()), None)
    return lost is None or f"{lost!r} doesn't"


@exercise.law("Without the shared words, the pieces are the text's words again")
def loses_nothing(out, one, call):
    if out == "ValueError":
        return None
    text, _, overlap = _asked(one)
    return [word for i, piece in enumerate(out) for word in piece.split()[overlap if i else 0 :]] == text.split()


@exercise.law("No piece has more than `size` words, and only the last one fewer")
def fits(out, one, call):
    if out == "ValueError":
        return None
    size = _asked(one)[1]
    counts = [len(piece.split()) for piece in out]
    return all(count == size for count in counts[:-1]) and all(count <= size for count in counts)


def _refuse(size, overlap):
    if size < 1 or not 0 <= overlap < size:
        raise ValueError("size must be positive, overlap smaller")


def _spans(text):
    return [found.span() for found in re.finditer(r"\S+", text)]


def _cut(text, spans, start, stop):
    return text[spans[start][0] : spans[min(stop, len(spans)) - 1][1]]


def _right(
    text, size, overlap=0, check=_refuse, step=None, cut=_cut, ends=lambda start, size, overlap, n: start + size >= n
):
    """A cutter in parts: what is refused, how far on, how a piece is cut, when it is the last."""
    check(size, overlap)
    spans, pieces, start = _spans(text), [], 0
    while start < len(spans):
        pieces.append(cut(text, spans, start, start + size))
        if ends(start, size, overlap, len(spans)):
            break
        start += step(size, overlap) if step else size - overlap
    return pieces


def _variant(**parts):
    def chunk_text(text, size, overlap=0):
        return _right(text, size, overlap, **parts)

    return chunk_text


exercise.mistake(
    "a last piece is added that holds nothing new",
    hint="When a piece has reached the last word, stop: what would follow is only its overlap.",
)(_variant(ends=lambda start, size, overlap, n: False))

exercise.mistake(
    "words are joined by single spaces, and a last piece is added that holds nothing new",
    hint="A piece is a slice of the text; and where one has reached the last word, stop.",
)(
    _variant(
        cut=lambda text, spans, start, stop: " ".join(text.split()[start:stop]),
        ends=lambda start, size, overlap, n: False,
    )
)

exercise.mistake("words are parted at single spaces", hint="Any white space parts words: text.split(), \\S+.")(
    lambda text, size, overlap=0: (
        _refuse(size, overlap)
        or [
            " ".join(text.split(" ")[i : i + size])
            for i in range(0, max(len(text.split(" ")) - overlap, 1), size - overlap)
        ]
    )
)


@exercise.mistake("only spaces, tabs and line feeds part words", hint="Any white space does: text.split(), \\S+.")
def chunk_few_spaces(text, size, overlap=0):
    _refuse(size, overlap)
    spans = [found.span() for found in re.finditer(r"[^ \n\t]+", text)]
    starts = range(0, max(len(spans) - overlap, 1) if spans else 0, size - overlap)
    return [_cut(text, spans, start, start + size) for start in starts]


@exercise.mistake("only letters and digits make words", hint="Whatever stands between white space is a word: \\S+.")
def chunk_letters_and_digits(text, size, overlap=0):
    _refuse(size, overlap)
    spans, pieces = [found.span() for found in re.finditer(r"\w+", text)], []
    for start in range(0, len(spans), size - overlap):
        pieces.append(_cut(text, spans, start, start + size))
        if start + size >= len(spans):
            break
    return pieces


exercise.mistake("the pieces are joined by single spaces", hint="A piece is a slice of the text: its own line breaks.")(
    _variant(cut=lambda text, spans, start, stop: " ".join(text.split()[start:stop]))
)

exercise.mistake("the overlap is ignored", hint="The next piece begins size - overlap words later.")(
    _variant(step=lambda size, overlap: size)
)

exercise.mistake("the next piece begins `overlap` words later", hint="size - overlap words later.")(
    _variant(step=lambda size, overlap: overlap or size)
)

exercise.mistake("one word more is shared", hint="size - overlap words later, not one fewer.")(
    _variant(step=lambda size, overlap: max(1, size - overlap - 1))
)


@exercise.mistake("the last piece is dropped if it is shorter", hint="The last words belong to the text as well.")
def chunk_drops_rest(text, size, overlap=0):
    return [piece for piece in _right(text, size, overlap) if len(piece.split()) == size]


@exercise.mistake(
    "the overlap comes on top of the size", hint="A piece has at most `size` words, shared ones included."
)
def chunk_on_top(text, size, overlap=0):
    _refuse(size, overlap)
    spans = _spans(text)
    return [_cut(text, spans, max(0, start - overlap), start + size) for start in range(0, len(spans), size)]


@exercise.mistake("letters are counted, not words", hint="Words are what text.split() gives.")
def chunk_letters(text, size, overlap=0):
    _refuse(size, overlap)
    return [text[i : i + size] for i in range(0, max(len(text) - overlap, 0), size - overlap)]


@exercise.mistake("white space stays at the end of a piece", hint="A piece ends with its last word.")
def chunk_with_gaps(text, size, overlap=0):
    _refuse(size, overlap)
    starts = [start for start, _ in _spans(text)] + [len(text)]
    n = len(starts) - 1
    places = range(0, max(n - overlap, min(n, 1)), size - overlap)
    return [text[starts[i] : starts[min(i + size, n)]] for i in places]


exercise.mistake("an overlap as large as the piece is let through", hint="Then no piece would get any further.")(
    _variant(check=lambda size, overlap: _refuse(size, min(overlap, size - 1)), step=lambda s, o: max(1, s - o))
)

exercise.mistake("a negative overlap is let through", hint="0 <= overlap < size, else ValueError.")(
    _variant(check=lambda size, overlap: _refuse(size, max(overlap, 0)))
)


@exercise.mistake("an empty text gives one empty piece", hint="No words, no pieces: [].")
def chunk_one_empty(text, size, overlap=0):
    return _right(text, size, overlap) or [""]


@exercise.mistake("a short text comes back as it is", hint="White space around it doesn't belong to a piece.")
def chunk_short_as_is(text, size, overlap=0):
    _refuse(size, overlap)
    return [text] if len(text.split()) <= size else _right(text, size, overlap)


@exercise.mistake("an empty text hides a wrong size", hint="Look at size and overlap first.")
def chunk_late_check(text, size, overlap=0):
    return _right(text, size, overlap) if text.strip() else []


exercise.alternative(_variant())


@exercise.alternative
def chunk_by_range(text, size, overlap=0):
    if size <= 0 or overlap < 0 or overlap >= size:
        raise ValueError(f"can't cut into {size} with {overlap}")
    places, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        places.append((at, at + len(word)))
        at += len(word)
    starts = [i for i in range(0, len(places), size - overlap) if i == 0 or i + overlap < len(places)]
    return [text[places[i][0] : places[i : i + size][-1][1]] for i in starts]

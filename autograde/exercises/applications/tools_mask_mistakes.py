"""Wrong token masks, and a few right ones that look different."""

from __future__ import annotations

import json
import re

import torch

_PARTS = {"integer": (r"-?(?:0|[1-9][0-9]*)", "-?"), "string": (r'"[^"\\\x00-\x1f]*"', r'(?:"[^"\\\x00-\x1f]*)?')}


def _dumps(value):
    return json.dumps(value, ensure_ascii=False)


def _literal(word, text):
    """What is left of a text after a word; None if the text ends within the word; nothing if it is another one."""
    if text.startswith(word):
        return [text[len(word):]]
    return [None] if word.startswith(text) else []


def _after(rests, step):
    return [end for rest in rests for end in ([None] if rest is None else step(rest))]


def _reader(parts=_PARTS, dumps=_dumps, colon=": ", comma=", ", choose=list, optional=False, truth=(True, False)):
    """A function from schema and text to what may be left after a value: texts, or None where the text ends first."""
    def read(schema, text):
        if "anyOf" in schema:
            return choose([end for each in schema["anyOf"] for end in read(each, text)])
        if "enum" in schema:
            return choose([end for value in schema["enum"] for end in _literal(dumps(value), text)])
        if schema["type"] == "boolean":
            return [end for value in truth for end in _literal(value if isinstance(value, str) else dumps(value), text)]
        if schema["type"] == "object":
            return read_object(schema["properties"], text)
        whole, part = parts[schema["type"]]
        if found := re.match(whole, text):
            return [text[found.end():]]
        return [None] if re.fullmatch(part, text) else []

    def read_object(properties, text):
        rests = _literal("{", text)
        done = []
        for i, (name, inner) in enumerate(properties.items()):
            done += _after(rests, lambda rest: _literal("}", rest)) if optional else []
            head = (comma if i else "") + dumps(name) + colon
            rests = _after(rests, lambda rest, head=head: _literal(head, rest))
            rests = _after(rests, lambda rest, inner=inner: read(inner, rest))
        return done + _after(rests, lambda rest: _literal("}", rest))

    return read


def _mask(read, fits=None, ends=None, empty=False):
    """A mask in parts: how a text is read, which token fits, where the end fits, whether the empty token does."""
    def constrain_json(text, vocabulary, schema):
        def left(t):
            return read(schema, t)

        def allowed(token):
            if token is None:
                return ends(left(text)) if ends else "" in left(text)
            if token == "":
                return empty
            return fits(left, text, token) if fits else bool({None, ""} & set(left(text + token)))

        return torch.tensor([allowed(token) for token in vocabulary], dtype=torch.bool)
    return constrain_json


def _first(ends):
    return ends[:1]


_read = _reader()
mask = _mask(_read)
mask_whole_values = _mask(_read, lambda left, text, token: "" in left(text + token))
mask_unfinished_only = _mask(_read, lambda left, text, token: None in left(text + token))
mask_first_letter = _mask(_read, lambda left, text, token: bool({None, ""} & set(left(text + token[0]))))
mask_without_text = _mask(_read, lambda left, text, token: bool({None, ""} & set(left(token))))
mask_goes_on_after_end = _mask(_read, lambda left, text, token: bool(left(text + token)))
mask_stripped = _mask(_read, lambda left, text, token: bool({None, ""} & set(left((text + token).strip()))))
mask_end_always = _mask(_read, ends=lambda ends: True)
mask_end_never = _mask(_read, ends=lambda ends: False)
mask_end_anywhere_legal = _mask(_read, ends=lambda ends: bool({None, ""} & set(ends)))
mask_empty = _mask(_read, empty=True)
mask_leading_zeros = _mask(_reader(_PARTS | {"integer": ("-?[0-9]+", "-?")}))
mask_no_minus = _mask(_reader(_PARTS | {"integer": ("(?:0|[1-9][0-9]*)", "")}))
mask_all_digits = _mask(_reader(_PARTS | {"integer": (r"-?(?:0|(?!0)\d+)", "-?")}))
mask_any_string = _mask(_reader(_PARTS | {"string": (r'"[^"]*"', r'(?:"[^"]*)?')}))
mask_control_letters = _mask(_reader(_PARTS | {"string": (r'"[^"\\]*"', r'(?:"[^"\\]*)?')}))
mask_ascii_strings = _mask(_reader(_PARTS | {"string": (r'"[ !#-\[\]-~]*"', r'(?:"[ !#-\[\]-~]*)?')}))
mask_escaped = _mask(_reader(dumps=json.dumps))
mask_no_spaces = _mask(_reader(colon=":", comma=","))
mask_first_choice = _mask(_reader(choose=_first))
mask_optional = _mask(_reader(optional=True))
mask_python_truth = _mask(_reader(truth=("True", "False")))


def mask_as_numbers(text, vocabulary, schema):
    """What a mask looks like once it is added to logits."""
    return torch.zeros(len(vocabulary)).masked_fill(~mask(text, vocabulary, schema), -torch.inf)


def mask_inverted(text, vocabulary, schema):
    return ~mask(text, vocabulary, schema)


def mask_within_a_piece(text, vocabulary, schema):
    """A token may not cross the border between two pieces of grammar: a literal, a number, the inside of a string."""
    right = mask(text, vocabulary, schema).tolist()
    borders = re.compile(r'[{}:,"]')
    alone = [token is None or len(token) == 1 or not borders.search(token) for token in vocabulary]
    return torch.tensor([fits and single for fits, single in zip(right, alone, strict=True)], dtype=torch.bool)


def mask_letter_by_letter(text, vocabulary, schema):
    """Walks over letters with the set of expectations still alive: lists of pieces yet to be read."""
    def expand(pieces):
        """The same expectations, each beginning with a letter, a class of letters or nothing."""
        if not pieces or isinstance(pieces[0], str):
            return [pieces]
        head, rest = pieces[0], pieces[1:]
        if isinstance(head, tuple):  # any number of letters of a class, and then the rest
            return [pieces, *expand(rest)]
        return [each for option in unfold(head) for each in expand([*option, *rest])]

    def unfold(schema):
        if "anyOf" in schema:
            return [[option] for option in schema["anyOf"]]
        if "enum" in schema:
            return [list(_dumps(value)) for value in schema["enum"]]
        if schema["type"] == "object":
            pieces = ["{"]
            for i, (name, inner) in enumerate(schema["properties"].items()):
                pieces += [*(", " if i else ""), *_dumps(name), *": ", inner]
            return [[*pieces, "}"]]
        positive = [["0"], *([digit, ("digit",)] for digit in "123456789")]
        return {"boolean": [list("true"), list("false")], "string": [['"', ("letter",), '"']],
                "integer": [*positive, *(["-", *each] for each in positive)]}[schema["type"]]

    def takes(head, letter):
        if isinstance(head, tuple):
            return letter in "0123456789" if head == ("digit",) else letter >= " " and letter not in '"\\'
        return head == letter

    def walk(alive, letters):
        for letter in letters:
            moved = [p if isinstance(p[0], tuple) else p[1:] for p in alive if p and takes(p[0], letter)]
            alive = [each for pieces in moved for each in expand(pieces)]
        return alive

    here = walk(expand([schema]), text)
    found = torch.zeros(len(vocabulary), dtype=torch.bool)
    for i, token in enumerate(vocabulary):
        found[i] = [] in here if token is None else token != "" and bool(walk(here, token))
    return found

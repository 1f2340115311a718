"""`constrain_json(text, vocabulary, schema)`

Which tokens may come next, so that the text goes on as a JSON value of the schema.
"""

from __future__ import annotations

import functools
import json
import re

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.prompts_and_tools.shared import jsonschema, pick, words

exercise = Draft(
    "constrain_json",
    points=4,
    no_gradient="which tokens may come is yes or no",
    hints=[
        "First a function for one question: does some value of the schema begin with this text, and is the text one? "
        "Ask it of text + token.",
        "Let read(schema, text) give what may be left over after a value: texts, or None where the text ends within "
        "the value. An object is a row of such steps, each going on with what the one before has left.",
        "For a fixed word: [text[len(word):]] if text starts with it, [None] if the word starts with the text, else "
        "[]. A token fits if None or '' is among the leftovers of text + token; the end if '' is among those of text.",
    ],
)


def written(value):
    return json.dumps(value, ensure_ascii=False)


_WHOLE, _TEXT, _TRUTH = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}

_NOISE = [
    None,
    "",
    " ",
    "\n",
    '"',
    "\\",
    "{",
    "}",
    ", ",
    ",",
    ": ",
    "0",
    "7",
    "-",
    "true",
    "True",
    "null",
    "٣",
    '"}',
    "[",
    "'",
    "é",
    "\\u00e9",
    "a",
]


def _object(**properties):
    return {"type": "object", "properties": properties}


def _call(name, **arguments):
    return _object(name={"enum": [name]}, arguments=_object(**arguments))


def _value(g, schema):
    """A value of the schema, at random."""
    if "anyOf" in schema:
        return _value(g, pick(g, schema["anyOf"]))
    if "enum" in schema:
        return pick(g, schema["enum"])
    if schema["type"] == "object":
        return {name: _value(g, inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "boolean":
        return pick(g, [True, False])
    return int(torch.randint(-300, 3000, (), generator=g)) if schema["type"] == "integer" else words(g, 1, 2)


def _pieces(g, rest, schema):
    """Tokens: beginnings of what may follow, the same with something wrong at the end, and noise."""
    right = [rest[:n] for n in (1, 2, 3, 5, 9) if n <= len(rest)]
    other = written(_value(g, schema))
    wrong = [token + pick(g, ["x", '"', " ", "1", "}"]) for token in right]
    tokens = list(dict.fromkeys([*right, *wrong, rest, other, other[:4], *_NOISE]))
    return [tokens[i] for i in torch.randperm(len(tokens), generator=g).tolist()]


@exercise.cases
def mask_cases(g):
    def within(schema):
        """A value of the schema, broken off at a random place."""
        text = written(_value(g, schema))
        cut = int(torch.randint(len(text), (), generator=g))
        return text[:cut], _pieces(g, text[cut:], schema), schema

    city = _call("get_weather", city=_TEXT, unit={"enum": ["celsius", "fahrenheit"]})
    timer, stop = _call("set_timer", minutes=_WHOLE, loud=_TRUTH), _call("stop")
    yield case("", [*_NOISE, "12", "-4", "00", "1.5", "1e3", "-x"], _WHOLE, label="an integer, nothing written yet")
    yield case("-", [*_NOISE, "12", "01", "0x", "--"], _WHOLE, label="an integer, after the minus sign")
    yield case(pick(g, ["0", "-0"]), [*_NOISE, "12", "00"], _WHOLE, label="an integer, after a zero")
    yield case(
        str(int(torch.randint(1, 99, (), generator=g))),
        [*_NOISE, "12", "5 "],
        _WHOLE,
        label="an integer that may end or go on",
    )
    yield case("", [*_NOISE, "tr", "false", "fals3", "t"], _TRUTH, label="a boolean")
    yield case("", [*_NOISE, '"a', '"a"', '"a" ', '""', '"a\n', '"\\'], _TEXT, label="a string")
    yield case(f'"{words(g)}', [*_NOISE, 'b"', 'b" ', "天", "\x7f", "\t", "a\\"], _TEXT, label="inside a string")
    yield case(
        "",
        [*_NOISE, "1", "12", "120", "1203", '"in', '"é', '"\\u00'],
        {"enum": [1, 12, 120, "in", "é"]},
        label="a choice, one value the beginning of another",
    )
    yield case("1", [*_NOISE, "2", "20", "203"], {"enum": [1, 12, 120, "in"]}, label="within a choice")
    yield case("", [*_NOISE, "{}", "{ }", "{}}"], _object(), label="an object without properties")
    yield case(
        '{"n": 4',
        [*_NOISE, '2, "', ', "ok": t', ', "n', "}}", '4, "ok":'],
        _object(n=_WHOLE, ok=_TRUTH),
        label="an object, after an integer",
    )
    yield case(*within(city), label="a call, anywhere")
    yield case(*within({"anyOf": [city, timer, stop]}), label="one of three tools, anywhere")
    yield case(
        '{"name": "s',
        [*_NOISE, "et", "top", 'top", ', 'top", "arguments": {}}', "et_weather", "tart"],
        {"anyOf": [city, timer, stop]},
        label="two tools whose names begin alike",
    )
    either = {"anyOf": [_object(a=_WHOLE), _object(a=_TEXT), _WHOLE]}
    yield case('{"a": ', [*_NOISE, '"b', "12", "3}", '3"'], either, label="two objects that begin alike")
    whole = written(_value(g, city))
    yield case(whole, [*_NOISE, "}}"], city, label="a call that is complete")
    yield case('{"n": 04', _NOISE, _object(n=_WHOLE), label="a text that no value begins with")
    yield case("t", [pick(g, ["rue", "rues"])], _TRUTH, label="one piece")


_STRING = r'"[^"\\\x00-\x1f]*"'


def _pattern(schema):
    import regex

    if "anyOf" in schema:
        return f"(?:{'|'.join(map(_pattern, schema['anyOf']))})"
    if "enum" in schema:
        return f"(?:{'|'.join(regex.escape(written(value)) for value in schema['enum'])})"
    if schema["type"] == "object":
        pairs = (f"{regex.escape(written(name))}: {_pattern(inner)}" for name, inner in schema["properties"].items())
        return rf"\{{{', '.join(pairs)}\}}"
    return {"boolean": "(?:true|false)", "integer": "-?(?:0|[1-9][0-9]*)", "string": _STRING}[schema["type"]]


@functools.lru_cache(maxsize=256)
def _compiled(text):
    import regex

    return regex.compile(_pattern(json.loads(text)))


@exercise.oracle
def matched(text, vocabulary, schema):
    """The regex module's partial match tells of every token whether a value may begin so."""
    pattern = _compiled(json.dumps(schema))

    def fits(token):
        if token is None:
            return pattern.fullmatch(text) is not None
        return token != "" and pattern.fullmatch(text + token, partial=True) is not None

    return torch.tensor([fits(token) for token in vocabulary], dtype=torch.bool)


@exercise.law("Where the text may end, json and jsonschema accept it")
def ends_in_a_value(out, one, call):
    """Where the text may end, it is JSON, and jsonschema accepts it."""
    text, vocabulary, schema = one.args
    if not any(bool(fits) for fits, token in zip(out, vocabulary, strict=True) if token is None):
        return None
    try:
        value = json.loads(text)
        jsonschema().validate(value, schema)
    except (json.JSONDecodeError, jsonschema().ValidationError):
        return f"the text may end after {text!r}"
    return True


@exercise.law("What json.dumps wrote may end")
def ends_where_a_value_does(out, one, call):
    """A text that json.dumps wrote of a value is allowed to end."""
    g = torch.Generator().manual_seed(len(one.args[0]))
    schema = one.args[2]
    text = written(_value(g, schema))
    return bool(call(text, [None], schema)[0]) or f"the text may not end after {text!r}"


@exercise.law("Of an allowed token every beginning is allowed")
def beginnings_are_allowed(out, one, call):
    """Of an allowed token every beginning is allowed as well."""
    text, vocabulary, schema = one.args
    allowed = [token for fits, token in zip(out.tolist(), vocabulary, strict=True) if fits and token]
    parts = sorted({token[:n] for token in allowed for n in range(1, len(token))})
    fits = call(text, parts, schema).tolist() if parts else []
    wrong = [part for part, fit in zip(parts, fits, strict=True) if not fit]
    return f"{wrong[0]!r} is refused, and something that begins so isn't" if wrong else True


@exercise.law("Each token is judged by itself")
def each_token_by_itself(out, one, call):
    text, vocabulary, schema = one.args
    return torch.equal(call(text, vocabulary[::-1], schema).flip(0), out)


@exercise.law("The empty token is never allowed")
def never_empty(out, one, call):
    """A token without letters would be chosen for ever."""
    text, _, schema = one.args
    return not bool(call(text, [""], schema)[0])


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


_PARTS = {"integer": (r"-?(?:0|[1-9][0-9]*)", "-?"), "string": (r'"[^"\\\x00-\x1f]*"', r'(?:"[^"\\\x00-\x1f]*)?')}


def _literal(word, text):
    """What is left of a text after a word; None if the text ends within the word; nothing if it is another one."""
    if text.startswith(word):
        return [text[len(word) :]]
    return [None] if word.startswith(text) else []


def _after(rests, step):
    return [end for rest in rests for end in ([None] if rest is None else step(rest))]


def _reader(parts=_PARTS, dumps=written, colon=": ", comma=", ", choose=list, optional=False, truth=(True, False)):
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
            return [text[found.end() :]]
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


_read = _reader()

exercise.mistake(
    "only tokens that complete the value are allowed", hint="The text has to stay the *beginning* of a value."
)(_mask(_read, lambda left, text, token: "" in left(text + token)))

exercise.mistake("a token that completes the value is refused", hint="A whole value is a beginning of itself.")(
    _mask(_read, lambda left, text, token: None in left(text + token))
)

exercise.mistake("a token is judged by its first letter", hint="All of its letters have to fit.")(
    _mask(_read, lambda left, text, token: bool({None, ""} & set(left(text + token[0]))))
)

exercise.mistake("what is written already is forgotten", hint="Judge text + token, not the token alone.")(
    _mask(_read, lambda left, text, token: bool({None, ""} & set(left(token))))
)

exercise.mistake(
    "a complete value may go on with anything", hint="After the last letter of the value nothing may follow."
)(_mask(_read, lambda left, text, token: bool(left(text + token))))

exercise.mistake(
    "white space around the value is allowed",
    hint="json.dumps writes none. Without a limit a model can write spaces for ever.",
)(_mask(_read, lambda left, text, token: bool({None, ""} & set(left((text + token).strip())))))

mask = _mask(_read)


@exercise.mistake(
    "a token may not reach across the parts of the value", hint="Real tokens do: '\"}' and '\": ' are one token each."
)
def mask_within_a_piece(text, vocabulary, schema):
    """A token may not cross the border between two pieces of grammar: a literal, a number, the inside of a string."""
    right = mask(text, vocabulary, schema).tolist()
    borders = re.compile(r'[{}:,"]')
    alone = [token is None or len(token) == 1 or not borders.search(token) for token in vocabulary]
    return torch.tensor([fits and single for fits, single in zip(right, alone, strict=True)], dtype=torch.bool)


exercise.mistake("the end is always allowed", hint="None fits where the text is complete.")(
    _mask(_read, ends=lambda ends: True)
)

exercise.mistake(
    "the end is never allowed", hint="None fits where the text is complete; else nothing is left to choose there."
)(_mask(_read, ends=lambda ends: False))

exercise.mistake(
    "the end is allowed in the middle of a value",
    hint="A beginning isn't enough for the end: the value has to be whole.",
)(_mask(_read, ends=lambda ends: bool({None, ""} & set(ends))))

exercise.mistake("the empty token is allowed", hint="It changes nothing, so a model could choose it for ever.")(
    _mask(_read, empty=True)
)

exercise.mistake("integers may begin with zeros", hint="JSON knows 0 and 10, not 010.")(
    _mask(_reader(_PARTS | {"integer": ("-?[0-9]+", "-?")}))
)

exercise.mistake("integers have no sign", hint="-5 is an integer.")(
    _mask(_reader(_PARTS | {"integer": ("(?:0|[1-9][0-9]*)", "")}))
)

exercise.mistake(
    "digits of other scripts are digits", hint=r"\d and str.isdigit take in Arabic digits; JSON wants [0-9]."
)(_mask(_reader(_PARTS | {"integer": (r"-?(?:0|(?!0)\d+)", "-?")})))

exercise.mistake(
    "a string may hold a backslash or a line break",
    hint="A backslash begins an escape, which is left out here; raw control letters aren't JSON.",
)(_mask(_reader(_PARTS | {"string": (r'"[^"]*"', r'(?:"[^"]*)?')})))

exercise.mistake("a string may hold control letters", hint="A raw line break or tab inside a string isn't JSON.")(
    _mask(_reader(_PARTS | {"string": (r'"[^"\\]*"', r'(?:"[^"\\]*)?')}))
)

exercise.mistake("a string holds ASCII only", hint="é and 天 stand for themselves in JSON.")(
    _mask(_reader(_PARTS | {"string": (r'"[ !#-\[\]-~]*"', r'(?:"[ !#-\[\]-~]*)?')}))
)

exercise.mistake("letters beyond ASCII are written as escapes", hint="json.dumps(value, ensure_ascii=False).")(
    _mask(_reader(dumps=json.dumps))
)

exercise.mistake("there is no space after colon and comma", hint="json.dumps writes ': ' and ', '.")(
    _mask(_reader(colon=":", comma=","))
)


def _first(ends):
    return ends[:1]


exercise.mistake(
    "the first choice that fits so far is the only one",
    hint="1 and 12, or two tools that begin alike: keep all possibilities alive.",
)(_mask(_reader(choose=_first)))

exercise.mistake("properties may be left out", hint="All of them, in the order of the schema.")(
    _mask(_reader(optional=True))
)

exercise.mistake("truth is written in Python", hint="JSON: true and false.")(_mask(_reader(truth=("True", "False"))))


@exercise.mistake("allowed and forbidden are exchanged", hint="True means: may come next.")
def mask_inverted(text, vocabulary, schema):
    return ~mask(text, vocabulary, schema)


@exercise.mistake("the mask holds 0 and -inf", hint="Booleans. What is done with the logits is the caller's affair.")
def mask_as_numbers(text, vocabulary, schema):
    """What a mask looks like once it is added to logits."""
    return torch.zeros(len(vocabulary)).masked_fill(~mask(text, vocabulary, schema), -torch.inf)


exercise.mistake("the mask holds 0 and 1", hint="Booleans: dtype=torch.bool.")(
    lambda text, vocabulary, schema: mask(text, vocabulary, schema).long()
)

exercise.mistake("the places of the allowed tokens are returned", hint="A bool for each token of the vocabulary.")(
    lambda text, vocabulary, schema: mask(text, vocabulary, schema).nonzero()[:, 0]
)

exercise.mistake("what is written already is ignored", hint="text + token has to be the beginning of a value.")(
    lambda text, vocabulary, schema: mask("", vocabulary, schema)
)

exercise.mistake("only the first of several schemas counts", hint="anyOf: a value of any of them.")(
    lambda text, vocabulary, schema: mask(text, vocabulary, schema.get("anyOf", [schema])[0])
)

exercise.alternative(mask)


@exercise.alternative
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
            return [list(written(value)) for value in schema["enum"]]
        if schema["type"] == "object":
            pieces = ["{"]
            for i, (name, inner) in enumerate(schema["properties"].items()):
                pieces += [*(", " if i else ""), *written(name), *": ", inner]
            return [[*pieces, "}"]]
        positive = [["0"], *([digit, ("digit",)] for digit in "123456789")]
        return {
            "boolean": [list("true"), list("false")],
            "string": [['"', ("letter",), '"']],
            "integer": [*positive, *(["-", *each] for each in positive)],
        }[schema["type"]]

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

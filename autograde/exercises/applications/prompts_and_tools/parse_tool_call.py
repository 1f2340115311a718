"""`parse_tool_call(text, schemas)`: The call in a model's answer: {"name": str, "arguments": dict}."""

from __future__ import annotations

import ast
import json
import re

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.prompts_and_tools.shared import (
    KINDS,
    agrees,
    jsonschema,
    judged,
    parse,
    parse_by_steps,
    parser,
    pick,
    raw,
    strict,
    words,
    wrote,
)
from autograde.judging.comparing import compare

exercise = Draft(
    "parse_tool_call",
    points=3,
    no_gradient="texts are no numbers",
    hints=[
        "Write it as a row of questions in the docstring's order, each followed by `raise ValueError(...)`.",
        "json.JSONDecoder().raw_decode(text[text.index('{'):])[0] reads the object; both index and raw_decode raise a "
        "ValueError that you turn into 'not JSON'.",
        "A dict from JSON type to Python's types, {'string': str, 'integer': int, 'number': (int, float), 'boolean': "
        "bool}, and one special rule: a bool fits 'boolean' alone.",
    ],
)

_UNITS = ["celsius", "fahrenheit"]


def _tool(name, required, **properties):
    described = {key: {**kind, "description": key} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": described}
    if required:
        parameters["required"] = required
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


_STRING, _WHOLE, _NUMBER, _TRUTH = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))

TOOLS = [
    _tool("get_weather", ["city", "unit"], city=_STRING, unit={"type": "string", "enum": _UNITS}, days=_WHOLE),
    _tool("set_timer", ["minutes"], minutes=_WHOLE, loud=_TRUTH),
    _tool("convert", ["rate", "amount"], rate=_NUMBER, amount=_NUMBER, note=_STRING),
    _tool("stop", []),
]


@exercise.cases
def parse_cases(g):
    def one(text, label):
        order = torch.randperm(len(TOOLS), generator=g).tolist()
        return case(text, [TOOLS[i] for i in order], label=label)

    def with_n(text):
        return text.replace("N", str(n))

    city, unit, n = words(g, 1, 2), pick(g, _UNITS), int(torch.randint(1, 90, (), generator=g))
    weather = wrote("get_weather", city=city, unit=unit)
    yield one(weather, "a call, and nothing else")
    yield one(f"Sure! {words(g)}:\n```json\n{weather}\n```\n{words(g)}", "text around the call")
    yield one(weather + "\n" + wrote("set_timer", minutes=n), "two calls: the first counts")
    yield one(weather + " I hope that helps :}", "a brace in the text after the call")
    yield one(
        with_n('{\n  "arguments": {"minutes": N},\n  "id": [{}],\n  "name": "set_timer"\n}'), "more keys, many lines"
    )
    yield one(wrote("stop"), "no argument")
    yield one(wrote("convert", amount=n, rate=1.5, note=f" {city}\n"), "white space in a text")
    yield one(wrote("set_timer", minutes=-n, loud=pick(g, [True, False])), "an argument that may be left out")
    yield one(wrote("convert", amount=n, rate=0.5 + n, note='it\'s "{fine}"'), "numbers, quotes and braces")
    yield one(f"The weather in {city} is sunny.", "prose")
    yield one("", "an empty answer")
    yield one(weather[: -1 - len(unit) // 2], "an answer that breaks off")
    yield one(f"In {{{city}}}: {weather}", "a brace in the text before the call")
    yield one(with_n("{'name': 'set_timer', 'arguments': {'minutes': N}}"), "Python's quotes instead of JSON's")
    yield one(with_n('{"name": "set_timer", "arguments": {"minutes": N * 60}}'), "a calculation")
    yield one(with_n('{"name": "set_timer", "arguments": {"minutes": N, "loud": True}}'), "Python's True")
    yield one(with_n('{"tool": "set_timer", "minutes": N}'), "a JSON object that is no call")
    yield one('{"name": "set_timer"}', "no arguments")
    yield one('{"name": ["stop"], "arguments": {}}', "a name that is no text")
    yield one(with_n('{"name": "set_timer", "arguments": "{\\"minutes\\": N}"}'), "arguments given as a text")
    yield one(wrote("get_wether", city=city, unit=unit), "a misspelt tool")
    yield one(wrote("Set_Timer", minutes=n), "a tool in capitals")
    yield one(wrote("get_weather", city=city), "an argument is missing")
    yield one(wrote("convert", note=city), "two arguments are missing")
    yield one(wrote("set_timer", minutes=n, hours=1), "an argument too many")
    yield one(wrote("set_timer", seconds=n, minutes=n, hours=1), "two arguments too many")
    yield one(wrote("get_weather", place=city, unit=3), "several mistakes")
    yield one(wrote("set_timer", minutes=str(n)), "a number given as a text")
    yield one(wrote("set_timer", minutes=n + 0.5), "a fraction for an integer")
    yield one(wrote("set_timer", minutes=float(n)), "a whole number with a point for an integer")
    yield one(wrote("set_timer", minutes=True), "true for an integer")
    yield one(wrote("set_timer", minutes=10**19 + n), "an integer beyond 64 bits")
    yield one(wrote("convert", amount=-n, rate=float(n)), "whole numbers for a number, one with a point")
    yield one(wrote("convert", amount=True, rate=1), "true for a number")
    yield one(wrote("set_timer", minutes=n, loud=1), "1 for a boolean")
    yield one(wrote("convert", rate="1", note=city, amount="2"), "two arguments of a wrong type")
    yield one(wrote("get_weather", city=None, unit=unit), "null for a text")
    yield one(wrote("get_weather", city=city, unit="kelvin"), "a value that isn't among the choices")
    yield one(wrote("get_weather", unit="kelvin", days="two", city=city), "a wrong value before a wrong type")


exercise.oracle(judged)


@exercise.probe
def parsed(parse_tool_call, text, schemas):
    """What the parser gives, or the message of the ValueError that it raises."""
    try:
        return parse_tool_call(text, schemas)
    except ValueError as error:
        return {"error": str(error)}


exercise.agrees(agrees)


@exercise.law("What is accepted satisfies the tool's schema, says jsonschema")
def accepted_calls_fit(out, one, call):
    """What is accepted satisfies the tool's schema, with nothing added."""
    if "error" in out:
        return None
    known = {each["function"]["name"]: each["function"]["parameters"] for each in one.args[1]}
    if out["name"] not in known:
        return f"there is no tool {out['name']!r}"
    strict = known[out["name"]] | {"additionalProperties": False}
    return jsonschema().Draft4Validator(strict).is_valid(out["arguments"])


@exercise.law("Text before and after the call changes nothing")
def words_around_are_ignored(out, one, call):
    return isinstance(out, dict) and compare(out, call(f"Of course: {one.args[0]} Done.", one.args[1])) is None


@exercise.law("The order of the tools changes nothing")
def order_of_tools_is_free(out, one, call):
    if isinstance(out, dict) and out.get("error") in ("not JSON", "not a call"):
        return None  # then no tool has been looked at
    return isinstance(out, dict) and compare(out, call(one.args[0], one.args[1][::-1])) is None


@exercise.law("A refusal is one of the seven messages")
def errors_are_sentences(out, one, call):
    """Every refusal is one of the seven messages."""
    starts = (
        "not JSON",
        "not a call",
        "unknown tool: ",
        "missing argument: ",
        "unknown argument: ",
        "wrong type: ",
        "wrong value: ",
    )
    return out["error"].startswith(starts) if "error" in out else None


def _guarded(read):
    """Any failure to read is 'not JSON'."""

    def guarded(text):
        try:
            return read(text)
        except Exception:
            raise ValueError("not JSON") from None

    return guarded


exercise.mistake(
    "the whole answer has to be JSON",
    hint="Models chat around a call. json.JSONDecoder().raw_decode reads one value and stops.",
)(parser(_guarded(json.loads)))


def _braces(text):
    return text[text.index("{") : text.rindex("}") + 1]


exercise.mistake(
    "the call reaches to the answer's last brace",
    hint="More braces may follow. raw_decode stops where the object ends.",
)(parser(_guarded(lambda text: json.loads(_braces(text)))))

exercise.mistake("the call ends at the first closing brace", hint="The arguments are an object of their own, inside.")(
    parser(_guarded(lambda text: json.loads(re.search(r"\{.*?\}", text, re.DOTALL)[0])))
)


def _objects(text):
    """Every JSON object that stands in a text."""
    for i, letter in enumerate(text):
        if letter == "{":
            try:
                yield json.JSONDecoder().raw_decode(text[i:])[0]
            except json.JSONDecodeError:
                continue


exercise.mistake(
    "an object anywhere in the text is taken",
    hint="Only what begins at the first brace counts: what looks broken is refused, not searched.",
)(parser(_guarded(lambda text: next(_objects(text)))))


def _python(text):
    """Carries out whatever stands there."""
    names = {"__builtins__": {}, "true": True, "false": False, "null": None}
    return eval(_braces(text), names)


exercise.mistake(
    "the answer is carried out as Python (eval)",
    hint="Never: whoever writes the prompt could then run code on your machine. It also takes 60 * 3.",
)(parser(_guarded(_python)))

exercise.mistake(
    "the answer is read as Python's literals", hint="JSON says true, false, null, and knows no single quotes. Use json."
)(parser(_guarded(lambda text: ast.literal_eval(_braces(text)))))

exercise.mistake(
    "single quotes are replaced by double ones",
    hint="That breaks texts with an apostrophe, and accepts what isn't JSON.",
)(parser(_guarded(lambda text: json.JSONDecoder().raw_decode(_braces(text).replace("'", '"'))[0])))

exercise.mistake(
    "json's own error message comes through", hint="JSONDecodeError is a ValueError; the model gets 'not JSON'."
)(parser(lambda text: json.JSONDecoder().raw_decode(text[text.index("{") :])[0]))


def _decoded(call):
    arguments = call.get("arguments")
    return json.loads(arguments) if isinstance(arguments, str) else arguments


exercise.mistake(
    "arguments that are a text are decoded once more", hint="Some services send them so. Here arguments are an object."
)(parser(arguments_of=_decoded))

exercise.mistake(
    "a call without arguments gets empty ones", hint="'arguments' has to be there: else it is not a call."
)(parser(arguments_of=lambda call: call.get("arguments", {})))


def _capitals(name, known):
    return next((each for each in known if each.lower() == name.lower()), name)


exercise.mistake(
    "capitals in a tool's name don't matter", hint="A name is right or unknown. The message lets the model correct it."
)(parser(find=_capitals))


def _nearest(name, known):
    import difflib

    return next(iter(difflib.get_close_matches(name, known, 1)), name)


exercise.mistake(
    "the tool with the most similar name is taken",
    hint="Guessing runs what nobody asked for. Say that the tool is unknown.",
)(parser(find=_nearest))


@exercise.mistake("only the first tool is known", hint="Look through all schemas.")
def parse_first_tool(text, schemas):
    return parse(text, schemas[:1])


exercise.mistake("missing arguments pass", hint="Look at the schema's 'required'.")(parser(missing=False))

exercise.mistake("every parameter is required", hint="Only those in 'required'.")(
    parser(require=lambda schema: list(schema["properties"]))
)

exercise.mistake("unknown arguments pass", hint="Look at the schema's 'properties'.")(parser(unknown=False))


@exercise.mistake("unknown arguments are silently dropped", hint="The model meant something by it: say so.")
def parse_unknown_dropped(text, schemas):
    """Leaves out what the tool doesn't know."""
    call = parser(unknown=False)(text, schemas)
    known = next(s["function"]["parameters"] for s in schemas if s["function"]["name"] == call["name"])["properties"]
    return {"name": call["name"], "arguments": {k: v for k, v in call["arguments"].items() if k in known}}


exercise.mistake("types aren't looked at", hint='"5" is no integer.')(parser(types=False))


def _converted(value, kind):
    """Whether a value could be turned into the type."""
    try:
        return kind not in ("integer", "number") or float(value) is not None
    except (TypeError, ValueError):
        return False


exercise.mistake("a text that could be turned into a number passes", hint="Don't guess: a text is no number.")(
    parser(fits=lambda value, kind: strict(value, kind) or _converted(value, kind))
)

exercise.mistake("true passes for a number", hint="In Python isinstance(True, int) is true. Ask for bool first.")(
    parser(fits=lambda value, kind: isinstance(value, KINDS[kind]))
)

exercise.mistake(
    "a float without a fraction passes for an integer", hint="5.0 has a point, and json.loads gives a float."
)(
    parser(
        fits=lambda value, kind: (
            strict(value, kind) or (kind == "integer" and isinstance(value, float) and value.is_integer())
        )
    )
)

exercise.mistake("an integer is no number", hint="In JSON 3 is a number like 3.5.")(
    parser(fits=lambda value, kind: strict(value, kind) and not (kind == "number" and isinstance(value, int)))
)

exercise.mistake("choices aren't looked at", hint="Look at 'enum'.")(parser(choices=False))

exercise.mistake(
    "unknown arguments are reported before missing ones", hint="The docstring says which message comes first."
)(parser(order=("unknown", "missing", "type", "value")))

exercise.mistake("a wrong value is reported before a wrong type", hint="The docstring says which message comes first.")(
    parser(order=("missing", "unknown", "value", "type"))
)


@exercise.mistake(
    "the message is returned instead of raised", hint="raise ValueError(message): a text could be mistaken for a call."
)
def parse_returns_error(text, schemas):
    """Gives the message back instead of raising."""
    try:
        return parse(text, schemas)
    except ValueError as error:
        return str(error)


def _changed(change):
    """The right call with every argument changed."""

    def parse_tool_call(text, schemas):
        call = parse(text, schemas)
        return call | {"arguments": {name: change(value) for name, value in call["arguments"].items()}}

    return parse_tool_call


exercise.mistake("whole numbers become floats", hint="Nothing is converted: 3 stays 3, and 3.0 stays 3.0.")(
    _changed(lambda value: float(value) if type(value) is int else value)
)

exercise.mistake("3.0 becomes 3", hint="Nothing is converted: 3 stays 3, and 3.0 stays 3.0.")(
    _changed(lambda value: int(value) if type(value) is float and value == int(value) else value)
)

exercise.mistake("only the arguments come back", hint="{'name': …, 'arguments': …}")(
    lambda text, schemas: parse(text, schemas)["arguments"]
)


@exercise.mistake("arguments that are left out become null", hint="Nothing is added: what isn't there isn't there.")
def parse_with_nulls(text, schemas):
    call = parse(text, schemas)
    known = next(s["function"]["parameters"] for s in schemas if s["function"]["name"] == call["name"])
    return call | {"arguments": dict.fromkeys(known["properties"]) | call["arguments"]}


exercise.mistake("all arguments become texts", hint="Nothing is converted.")(_changed(str))

exercise.mistake("the other keys of the object come back, too", hint="'name' and 'arguments', and nothing else.")(
    lambda text, schemas: {**raw(text), **parse(text, schemas)}
)

exercise.mistake("texts are stripped of white space", hint="Nothing is corrected.")(
    _changed(lambda value: value.strip() if isinstance(value, str) else value)
)

exercise.alternative(parse)

exercise.alternative(parse_by_steps)

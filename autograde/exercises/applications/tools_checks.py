"""What parsed tool calls of 02_applications/04_prompts_and_tools are judged by."""

from __future__ import annotations

import json

import torch

from autograde.exercise import case
from autograde.exercises.applications.prompts_checks import pick, words
from autograde.judging.comparing import compare


def agrees(expected, got, one):
    """Equal, in kind of value as well. (A comparison of its own, so that the laws are asked of an error, too.)"""
    mismatch = compare(expected, got)
    return True if mismatch is None and type(expected) is type(got) else mismatch.message if mismatch else "is no dict"


# ---- parse_tool_call ------------------------------------------------------------------------------------------------

def _tool(name, required, **properties):
    described = {key: {**kind, "description": key} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": described}
    if required:
        parameters["required"] = required
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


_UNITS = ["celsius", "fahrenheit"]
_STRING, _WHOLE, _NUMBER, _TRUTH = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
TOOLS = [
    _tool("get_weather", ["city", "unit"], city=_STRING, unit={"type": "string", "enum": _UNITS}, days=_WHOLE),
    _tool("set_timer", ["minutes"], minutes=_WHOLE, loud=_TRUTH),
    _tool("convert", ["amount", "rate"], amount=_NUMBER, rate=_NUMBER, note=_STRING),
    _tool("stop", []),
]


def parsed(parse_tool_call, text, schemas):
    """What the parser gives, or the message of the ValueError that it raises."""
    try:
        return parse_tool_call(text, schemas)
    except ValueError as error:
        return {"error": str(error)}


def judged(text, schemas):
    """The verdict of json and jsonschema, put into the words that the exercise asks for."""
    try:
        call, _ = json.JSONDecoder().raw_decode(text[text.index("{"):])
    except ValueError:
        return {"error": "not JSON"}
    if not isinstance(call.get("name"), str) or not isinstance(call.get("arguments"), dict):
        return {"error": "not a call"}
    known = {each["function"]["name"]: each["function"]["parameters"] for each in schemas}
    if call["name"] not in known:
        return {"error": f"unknown tool: {call['name']}"}
    return _fault(call["arguments"], known[call["name"]]) or {"name": call["name"], "arguments": call["arguments"]}


def _fault(arguments, schema):
    """The first error that jsonschema finds, missing ones first; None where there is none."""
    import jsonschema

    def fails(value, part):
        return not jsonschema.Draft4Validator(part).is_valid(value)  # there 5.0 is no integer; later drafts allow it

    missing = (name for name in schema.get("required", []) if fails(arguments, {"required": [name]}))
    unknown = (name for name in arguments if name not in schema["properties"])
    kinds = {name: schema["properties"].get(name, {}) for name in arguments}
    types = (name for name, kind in kinds.items() if "type" in kind and fails(arguments[name], {"type": kind["type"]}))
    values = (name for name, kind in kinds.items() if "enum" in kind and fails(arguments[name], {"enum": kind["enum"]}))
    messages = {"missing argument: {0}": missing, "unknown argument: {0}": unknown,
                "wrong type: {0} should be {type}": types, "wrong value: {0} should be one of {enum}": values}
    for says, names in messages.items():
        for name in names:
            kind = kinds.get(name, {})
            return {"error": says.format(name, type=kind.get("type"), enum=", ".join(kind.get("enum", [])))}
    return None


def wrote(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


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
    yield one(with_n('{\n  "arguments": {"minutes": N},\n  "id": [{}],\n  "name": "set_timer"\n}'),
              "more keys, many lines")
    yield one(wrote("stop"), "no argument")
    yield one(wrote("set_timer", minutes=-n, loud=pick(g, [True, False])), "an argument that may be left out")
    yield one(wrote("convert", amount=n, rate=0.5 + n, note="it's \"{fine}\""), "numbers, quotes and braces")
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
    yield one(wrote("get_weather", place=city, unit=3), "several mistakes")
    yield one(wrote("set_timer", minutes=str(n)), "a number given as a text")
    yield one(wrote("set_timer", minutes=n + 0.5), "a fraction for an integer")
    yield one(wrote("set_timer", minutes=float(n)), "a whole number with a point for an integer")
    yield one(wrote("set_timer", minutes=True), "true for an integer")
    yield one(wrote("convert", amount=True, rate=1), "true for a number")
    yield one(wrote("set_timer", minutes=n, loud=1), "1 for a boolean")
    yield one(wrote("get_weather", city=None, unit=unit), "null for a text")
    yield one(wrote("get_weather", city=city, unit="kelvin"), "a value that isn't among the choices")
    yield one(wrote("get_weather", unit="kelvin", days="two", city=city), "a wrong value before a wrong type")


def accepted_calls_fit(out, one, call):
    """What is accepted satisfies the tool's schema, with nothing added."""
    import jsonschema

    if "error" in out:
        return None
    known = {each["function"]["name"]: each["function"]["parameters"] for each in one.args[1]}
    if out["name"] not in known:
        return f"there is no tool {out['name']!r}"
    strict = known[out["name"]] | {"additionalProperties": False}
    return jsonschema.Draft4Validator(strict).is_valid(out["arguments"])


def words_around_are_ignored(out, one, call):
    return isinstance(out, dict) and compare(out, call(f"Of course: {one.args[0]} Done.", one.args[1])) is None


def order_of_tools_is_free(out, one, call):
    if isinstance(out, dict) and out.get("error") in ("not JSON", "not a call"):
        return None  # then no tool has been looked at
    return isinstance(out, dict) and compare(out, call(one.args[0], one.args[1][::-1])) is None


def errors_are_sentences(out, one, call):
    """Every refusal is one of the seven messages."""
    starts = ("not JSON", "not a call", "unknown tool: ", "missing argument: ", "unknown argument: ", "wrong type: ",
              "wrong value: ")
    return out["error"].startswith(starts) if "error" in out else None

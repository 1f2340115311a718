"""What exercises of the chapter prompts_and_tools share."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
import types
import typing

import torch

from autograde.judging.comparing import compare
from autograde.slow_imports import iris_put_off

WORDS = ["river", "seven", "Ünder", "map", "42", "why", "the", "blue", "cat", "天气", "soon", "tea", "a", "it's"]


def pick(g, items):
    """One of the items, at random."""
    return items[int(torch.randint(len(items), (), generator=g))]


def words(g, least=1, most=5):
    """A few random words."""
    return " ".join(pick(g, WORDS) for _ in range(int(torch.randint(least, most + 1, (), generator=g))))


def function(source, name):
    namespace = {"__name__": "tools"}
    exec(source, namespace)
    return namespace[name]


def hf_schema(source, name):
    """What transformers' get_json_schema says, without the return value; its own errors count as ValueError."""
    from transformers.utils import chat_template_utils as hf

    try:
        schema = hf.get_json_schema(function(source, name))
    except (hf.DocstringParsingException, hf.TypeHintParsingException):
        return {"raised": "ValueError"}
    schema["function"].pop("return", None)
    return schema


NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def hint_schema(hint, names=NAMES):
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"type": "string", "enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return hint_schema(next(each for each in inner if each is not type(None)), names) | {"nullable": True}
    if origin is list:
        return {"type": "array", "items": hint_schema(inner[0], names)}
    return {"type": names[hint]}


def described(doc):
    """What a docstring says of the function, and of each parameter."""
    text, _, rest = doc.partition("Args:\n")
    about = {}
    for line in rest.split("Returns:")[0].splitlines():
        found = re.match(r" {4}(\w+): (.*)", line)
        if found:
            name = found[1]
            about[name] = found[2].strip()
        elif line.strip():
            about[name] += " " + line.strip()
    return text.partition("Returns:")[0].strip(), about


def needed(parameters, hints):
    return [name for name, parameter in parameters.items() if parameter.default is parameter.empty]


def undescribed(name):
    raise ValueError(f"{name} has no description or no type hint")


def tool_made_of(
    hint=hint_schema,
    describe=described,
    required=needed,
    hints_of=typing.get_type_hints,
    missing=undescribed,
    wrap=lambda inner: {"type": "function", "function": inner},
    drops_empty=True,
    with_return=False,
):
    """A maker of schemas in parts: of a hint, of a docstring, which are required, what if something is missing."""

    def tool_schema(function):
        text, about = describe(inspect.getdoc(function) or missing(function.__name__) or "")
        hints, parameters = hints_of(function), inspect.signature(function).parameters
        names = [*parameters, *(["return"] if with_return and "return" in hints else [])]
        properties = {}
        for name in names:
            known = hints[name] if name in hints else missing(name) or str
            told = about[name] if name in about else "" if name == "return" else missing(name) or ""
            properties[name] = {**hint(known), "description": told}
        inner = {"type": "object", "properties": properties}
        if (wanted := required(parameters, hints)) or not drops_empty:
            inner["required"] = wanted
        return wrap({"name": function.__name__, "description": text, "parameters": inner})

    return tool_schema


right_tool = tool_made_of()


def agrees(expected, got, one):
    """Equal, in kind of value as well. (A comparison of its own, so that the laws are asked of an error, too.)"""
    mismatch = compare(expected, got, strict=True)
    return True if mismatch is None and type(expected) is type(got) else mismatch.message if mismatch else "is no dict"


@functools.cache
def jsonschema():
    """The library."""
    with iris_put_off():
        return importlib.import_module("jsonschema")


def fault(arguments, schema):
    """The first error that jsonschema finds, missing ones first; None where there is none."""

    def fails(value, part):
        return not jsonschema().Draft4Validator(part).is_valid(value)  # there 5.0 is no integer; later drafts allow it

    missing = (name for name in schema.get("required", []) if fails(arguments, {"required": [name]}))
    unknown = (name for name in arguments if name not in schema["properties"])
    kinds = {name: schema["properties"].get(name, {}) for name in arguments}
    types = (name for name, kind in kinds.items() if "type" in kind and fails(arguments[name], {"type": kind["type"]}))
    values = (name for name, kind in kinds.items() if "enum" in kind and fails(arguments[name], {"enum": kind["enum"]}))
    messages = {
        "missing argument: {0}": missing,
        "unknown argument: {0}": unknown,
        "wrong type: {0} should be {type}": types,
        "wrong value: {0} should be one of {enum}": values,
    }
    for says, names in messages.items():
        for name in names:
            kind = kinds.get(name, {})
            return {"error": says.format(name, type=kind.get("type"), enum=", ".join(kind.get("enum", [])))}
    return None


def judged(text, schemas):
    """The verdict of json and jsonschema, put into the words that the exercise asks for."""
    try:
        call, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    except ValueError:
        return {"error": "not JSON"}
    if not isinstance(call.get("name"), str) or not isinstance(call.get("arguments"), dict):
        return {"error": "not a call"}
    known = {each["function"]["name"]: each["function"]["parameters"] for each in schemas}
    if call["name"] not in known:
        return {"error": f"unknown tool: {call['name']}"}
    return fault(call["arguments"], known[call["name"]]) or {"name": call["name"], "arguments": call["arguments"]}


def wrote(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def raw(text):
    """The JSON value that begins at the first brace."""
    try:
        return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    except ValueError:
        raise ValueError("not JSON") from None


def strict(value, kind):
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def parser(
    read=raw,
    fits=strict,
    missing=True,
    unknown=True,
    choices=True,
    types=True,
    require=None,
    find=None,
    arguments_of=lambda call: call.get("arguments"),
    order=("missing", "unknown", "type", "value"),
):
    """A parser in parts: how JSON is found, whether a value fits, what is looked at, and in which order."""

    def faults(arguments, schema):
        properties = schema["properties"]
        required = require(schema) if require else schema.get("required", [])
        known = [name for name in arguments if name in properties]
        enums = {name: properties[name]["enum"] for name in known if "enum" in properties[name]}
        return {
            "missing": [f"missing argument: {name}" for name in required if name not in arguments] * missing,
            "unknown": [f"unknown argument: {name}" for name in arguments if name not in properties] * unknown,
            "type": [
                f"wrong type: {name} should be {properties[name]['type']}"
                for name in known
                if not fits(arguments[name], properties[name]["type"])
            ]
            * types,
            "value": [
                f"wrong value: {name} should be one of {', '.join(enum)}"
                for name, enum in enums.items()
                if arguments[name] not in enum
            ]
            * choices,
        }

    def parse_tool_call(text, schemas):
        call = read(text)
        if not isinstance(call, dict):
            raise ValueError("not JSON")
        name, arguments = call.get("name"), arguments_of(call)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise ValueError("not a call")
        known = {each["function"]["name"]: each["function"]["parameters"] for each in schemas}
        name = find(name, known) if find else name
        if name not in known:
            raise ValueError(f"unknown tool: {name}")
        found = faults(arguments, known[name])
        for kind in order:
            if found[kind]:
                raise ValueError(found[kind][0])
        return {"name": name, "arguments": arguments}

    return parse_tool_call


parse = parser()


def parse_by_steps(text, schemas):
    start = text.find("{")
    if start < 0:
        raise ValueError("not JSON")
    try:
        call = json.JSONDecoder().raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        raise ValueError("not JSON") from error
    if type(call.get("name")) is not str or type(call.get("arguments")) is not dict:
        raise ValueError("not a call")
    tool_of = [s["function"]["parameters"] for s in schemas if s["function"]["name"] == call["name"]]
    if not tool_of:
        raise ValueError("unknown tool: " + call["name"])
    given, properties = call["arguments"], tool_of[0]["properties"]
    for name in tool_of[0].get("required", ()):
        if name not in given:
            raise ValueError("missing argument: " + name)
    for name in given:
        if name not in properties:
            raise ValueError("unknown argument: " + name)
    exact = {"string": [str], "integer": [int], "number": [int, float], "boolean": [bool]}
    for name, value in given.items():
        if type(value) not in exact[properties[name]["type"]]:
            raise ValueError(f"wrong type: {name} should be {properties[name]['type']}")
    for name, value in given.items():
        if value not in properties[name].get("enum", [value]):
            raise ValueError(f"wrong value: {name} should be one of " + ", ".join(properties[name]["enum"]))
    return {"arguments": given, "name": call["name"]}

"""Wrong ways to read a tool call and to carry it out, and a few right ones that look different."""

from __future__ import annotations

import ast
import builtins
import json
import re

from autograde.exercises.applications.prompts_mistakes import tool

_KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


# ---- parse_tool_call ------------------------------------------------------------------------------------------------

def _raw(text):
    """The JSON value that begins at the first brace."""
    try:
        return json.JSONDecoder().raw_decode(text[text.index("{"):])[0]
    except ValueError:
        raise ValueError("not JSON") from None


def _strict(value, kind):
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _parser(read=_raw, fits=_strict, missing=True, unknown=True, choices=True, types=True, require=None, find=None,
            arguments_of=lambda call: call.get("arguments"), order=("missing", "unknown", "type", "value")):
    """A parser in parts: how JSON is found, whether a value fits, what is looked at, and in which order."""
    def faults(arguments, schema):
        properties = schema["properties"]
        required = require(schema) if require else schema.get("required", [])
        known = [name for name in arguments if name in properties]
        enums = {name: properties[name]["enum"] for name in known if "enum" in properties[name]}
        return {
            "missing": [f"missing argument: {name}" for name in required if name not in arguments] * missing,
            "unknown": [f"unknown argument: {name}" for name in arguments if name not in properties] * unknown,
            "type": [f"wrong type: {name} should be {properties[name]['type']}" for name in known
                     if not fits(arguments[name], properties[name]["type"])] * types,
            "value": [f"wrong value: {name} should be one of {', '.join(enum)}" for name, enum in enums.items()
                      if arguments[name] not in enum] * choices,
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


def _guarded(read):
    """Any failure to read is 'not JSON'."""
    def guarded(text):
        try:
            return read(text)
        except Exception:
            raise ValueError("not JSON") from None
    return guarded


def _python(text):
    """Carries out whatever stands there."""
    names = {"__builtins__": {}, "true": True, "false": False, "null": None}
    return eval(_braces(text), names)


def _braces(text):
    return text[text.index("{") : text.rindex("}") + 1]


def _converted(value, kind):
    """Whether a value could be turned into the type."""
    try:
        return kind not in ("integer", "number") or float(value) is not None
    except (TypeError, ValueError):
        return False


def _decoded(call):
    arguments = call.get("arguments")
    return json.loads(arguments) if isinstance(arguments, str) else arguments


def _capitals(name, known):
    return next((each for each in known if each.lower() == name.lower()), name)


def _nearest(name, known):
    import difflib

    return next(iter(difflib.get_close_matches(name, known, 1)), name)


parse = _parser()
parse_whole = _parser(_guarded(json.loads))
parse_to_last_brace = _parser(_guarded(lambda text: json.loads(_braces(text))))
parse_to_first_closing = _parser(_guarded(lambda text: json.loads(re.search(r"\{.*?\}", text, re.DOTALL)[0])))
parse_any_brace = _parser(_guarded(lambda text: next(_objects(text))))
parse_eval = _parser(_guarded(_python))
parse_literal = _parser(_guarded(lambda text: ast.literal_eval(_braces(text))))
parse_quotes = _parser(_guarded(lambda text: json.JSONDecoder().raw_decode(_braces(text).replace("'", '"'))[0]))
parse_own_message = _parser(lambda text: json.JSONDecoder().raw_decode(text[text.index("{"):])[0])
parse_text_arguments = _parser(arguments_of=_decoded)
parse_no_arguments = _parser(arguments_of=lambda call: call.get("arguments", {}))
parse_capitals = _parser(find=_capitals)
parse_nearest = _parser(find=_nearest)
parse_missing_passes = _parser(missing=False)
parse_unknown_passes = _parser(unknown=False)
parse_types_pass = _parser(types=False)
parse_choices_pass = _parser(choices=False)
parse_all_required = _parser(require=lambda schema: list(schema["properties"]))
parse_point_is_whole = _parser(fits=lambda value, kind: _strict(value, kind) or (
    kind == "integer" and isinstance(value, float) and value.is_integer()))
parse_truth_is_whole = _parser(fits=lambda value, kind: isinstance(value, _KINDS[kind]))
parse_whole_is_no_number = _parser(fits=lambda value, kind: _strict(value, kind) and not (
    kind == "number" and isinstance(value, int)))
parse_convertible = _parser(fits=lambda value, kind: _strict(value, kind) or _converted(value, kind))
parse_unknown_first = _parser(order=("unknown", "missing", "type", "value"))
parse_values_first = _parser(order=("missing", "unknown", "value", "type"))


def _objects(text):
    """Every JSON object that stands in a text."""
    for i, letter in enumerate(text):
        if letter == "{":
            try:
                yield json.JSONDecoder().raw_decode(text[i:])[0]
            except json.JSONDecodeError:
                continue


def parse_first_tool(text, schemas):
    return parse(text, schemas[:1])


def parse_returns_error(text, schemas):
    """Gives the message back instead of raising."""
    try:
        return parse(text, schemas)
    except ValueError as error:
        return str(error)


def parse_unknown_dropped(text, schemas):
    """Leaves out what the tool doesn't know."""
    call = _parser(unknown=False)(text, schemas)
    known = next(s["function"]["parameters"] for s in schemas if s["function"]["name"] == call["name"])["properties"]
    return {"name": call["name"], "arguments": {k: v for k, v in call["arguments"].items() if k in known}}


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


# ---- dispatch -------------------------------------------------------------------------------------------------------

def _told(result):
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def _failed(error):
    return f"error: {type(error).__name__}: {error}"


def _dispatcher(read=parse, run=lambda function, arguments: function(**arguments), tell=_told, failed=_failed,
                message=lambda content: {"role": "tool", "content": content}, catch=Exception, refuse=ValueError):
    """A dispatcher in parts: how the call is read, run and told, and what becomes of errors."""
    def dispatch(text, functions):
        try:
            call = read(text, [tool(function) for function in functions])
        except refuse as error:
            return message(f"error: {error}")
        try:
            return message(tell(run(_named(functions)[call["name"]], call["arguments"])))
        except catch as error:
            return message(failed(error))
    return dispatch


def _named(functions):
    return {function.__name__: function for function in functions}


def _twice(function, arguments):
    """Tries first whether it works."""
    function(**arguments)
    return function(**arguments)


class _Never(Exception):
    pass


dispatch = _dispatcher()
dispatch_by_place = _dispatcher(run=lambda function, arguments: function(*arguments.values()))
dispatch_as_dict = _dispatcher(run=lambda function, arguments: function(arguments))
dispatch_twice = _dispatcher(run=_twice)
dispatch_python_text = _dispatcher(tell=str)
dispatch_quoted = _dispatcher(tell=lambda result: json.dumps(result, ensure_ascii=False, default=str))
dispatch_escaped = _dispatcher(tell=lambda r: r if isinstance(r, str) else json.dumps(r, default=str))
dispatch_plain_json = _dispatcher(tell=lambda r: r if isinstance(r, str) else json.dumps(r, ensure_ascii=False))
dispatch_untold = _dispatcher(tell=lambda result: result)
dispatch_falsy_is_nothing = _dispatcher(tell=lambda result: _told(result) if result else "error: no result")
dispatch_nothing_is_empty = _dispatcher(tell=lambda result: "" if result is None else _told(result))
dispatch_tool_raises = _dispatcher(catch=_Never)
dispatch_parse_raises = _dispatcher(refuse=_Never)
dispatch_untyped_error = _dispatcher(failed=lambda error: f"error: {error}")
dispatch_vague_error = _dispatcher(failed=lambda error: "error: the tool failed")
dispatch_as_user = _dispatcher(message=lambda content: {"role": "user", "content": content})
dispatch_bare = _dispatcher(message=lambda content: content)
dispatch_unchecked = _dispatcher(read=lambda text, schemas: parse_types_unseen(text, schemas))
parse_types_unseen = _parser(missing=False, unknown=False, types=False, choices=False)


def dispatch_one_net(text, functions):
    """One try around everything: a ValueError of the tool looks like one of the parser's."""
    try:
        call = parse(text, [tool(function) for function in functions])
        content = _told(_named(functions)[call["name"]](**call["arguments"]))
    except ValueError as error:
        content = f"error: {error}"
    except Exception as error:
        content = _failed(error)
    return {"role": "tool", "content": content}


def dispatch_anything(text, functions):
    """Looks the name up wherever Python knows one."""
    try:
        call = _raw(text)
        space = functions[0].__globals__ if functions else {}
        function = _named(functions).get(call["name"]) or space.get(call["name"]) or getattr(builtins, call["name"])
        if function in (exit, print, globals):
            return {"role": "tool", "content": "None"}
        return {"role": "tool", "content": _told(function(**call["arguments"]))}
    except Exception as error:
        return {"role": "tool", "content": _failed(error)}


def dispatch_silent(text, functions):
    """Says nothing where something is wrong."""
    content = dispatch(text, functions)["content"]
    return {"role": "tool", "content": "" if content.startswith("error: ") else content}


def dispatch_by_search(text, functions):
    try:
        call = parse_by_steps(text, [tool(function) for function in functions])
    except ValueError as error:
        return {"role": "tool", "content": "error: " + str(error)}
    for function in functions:
        if function.__name__ == call["name"]:
            try:
                result = function(**call["arguments"])
                if not isinstance(result, str):
                    result = json.dumps(result, ensure_ascii=False, default=str)
            except Exception as error:
                result = "error: " + type(error).__name__ + ": " + str(error)
    return {"content": result, "role": "tool"}

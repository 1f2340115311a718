"""`tool_schema(function)`: The description of a function for a model, as a JSON Schema in OpenAI's form."""

from __future__ import annotations

import inspect
import json
import re
import typing

from autograde.exercise import Draft, case
from autograde.exercises.applications.prompts_and_tools.shared import (
    NAMES,
    WORDS,
    agrees,
    described,
    function,
    hf_schema,
    hint_schema,
    jsonschema,
    needed,
    pick,
    right_tool,
    tool_made_of,
    words,
)

exercise = Draft(
    "tool_schema",
    points=3,
    no_gradient="texts are no numbers",
    forbid=["transformers"],
    hints=[
        "Three sources: inspect.signature for names and defaults, typing.get_type_hints for types, inspect.getdoc for "
        "the words.",
        "A hint's schema calls itself: list[X] has the items X, and X | None is X with nullable. typing.get_origin and "
        "get_args take a hint apart.",
        "In the part after 'Args:\\n', a line that matches ' {4}(\\w+): (.*)' begins a parameter; other lines that "
        "aren't blank go on with it.",
    ],
)


def _source(name, parameters, doc, returns="", head=""):
    """The source text of a function with that signature and docstring."""
    lines = ['"""' + doc[0], *doc[1:], '"""'] if doc else []
    told = "".join(f"    {line}".rstrip() + "\n" for line in lines)
    return f"{head}from typing import Literal\n\ndef {name}({parameters}){returns}:\n{told}    return None\n"


@exercise.cases
def schema_cases(g):
    def one(label, parameters, doc, returns="", head=""):
        name = pick(g, ["get_weather", "set_timer", "find", "play", "f"])
        return case(_source(name, parameters, doc, returns, head), name, label=label)

    a, b = pick(g, ["city", "place", "x"]), pick(g, ["unit", "n", "y"])
    says, more = words(g), words(g)
    yield one(
        "two required parameters",
        f"{a}: str, {b}: int",
        [f"{says}.", "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"],
    )
    yield one(
        "three required parameters",
        "m: int, z: str, a: bool",
        [says, "", "Args:", f"    m: {more}", f"    z: {words(g)}", f"    a: {words(g)}"],
    )
    yield one(
        "a default value",
        f"{a}: str, {b}: float = 1.5",
        [says, "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"],
    )
    yield one(
        "only default values",
        f"{a}: int = 3, {b}: bool = True",
        [says, "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"],
    )
    yield one("no parameter", "", [f"{says}."], " -> str")
    choices = ", ".join(f'"{word}"' for word in ["celsius", "kelvin", pick(g, WORDS)])
    yield one("a choice of texts", f"{a}: Literal[{choices}]", [says, "", "Args:", f"    {a}: {more}"])
    yield one(
        "may be None",
        f"{a}: str | None, {b}: int | None = None",
        [says, "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"],
    )
    yield one(
        "lists",
        f"{a}: list[float], {b}: list[list[str]]",
        [says, "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"],
    )
    yield one(
        "a return value",
        f"{a}: bool",
        [says, "", "Args:", f"    {a}: {more}", "", "Returns:", f"    {words(g)}"],
        " -> float",
    )
    yield one(
        "descriptions of several lines",
        f"{a}: str, {b}: str",
        [
            says,
            f"{more}.",
            "",
            words(g),
            "",
            "Args:",
            f"    {a}: {words(g)}",
            f"        {words(g)}",
            "",
            f"        {words(g)}",
            f"    {b}: {words(g)}",
        ],
    )
    yield one(
        "a colon in a description",
        f"{a}: str, {b}: int",
        [says, "", "Args:", f"    {a}: one of: {more}", f"    {b}: {words(g)}: {words(g)}"],
    )
    yield one(
        "hints that are texts",
        f"{a}: int, {b}: list[str] = ()",
        [says, "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"],
        " -> int",
        "from __future__ import annotations\n",
    )
    yield one(
        "described in another order",
        f"{a}: int, {b}: str",
        [says, "", "Args:", f"    {b}: {more}", f"    {a}: {words(g)}"],
    )
    yield one("no docstring", f"{a}: str", [])
    yield one(
        "a parameter without a hint", f"{a}, {b}: int", [says, "", "Args:", f"    {a}: {more}", f"    {b}: {words(g)}"]
    )
    yield one("a parameter without a description", f"{a}: int, {b}: int", [says, "", "Args:", f"    {a}: {more}"])


exercise.oracle(hf_schema)


@exercise.probe
def schema_of(tool_schema, source, name):
    """The learner's schema of the function `name` that `source` defines, or the ValueError that it raises."""
    namespace = {"__name__": "tools"}
    exec(source, namespace)
    try:
        return tool_schema(namespace[name])
    except ValueError:
        return {"raised": "ValueError"}


exercise.agrees(agrees)


def _raised(out):
    return out == {"raised": "ValueError"}


@exercise.law("The parameters are a JSON Schema, by the standard's own rules")
def is_a_schema(out, one, call):
    """The parameters form a JSON Schema by the standard's own meta-schema."""
    if _raised(out):
        return None
    draft = jsonschema().Draft202012Validator
    standard = draft(draft.META_SCHEMA, format_checker=draft.FORMAT_CHECKER)
    errors = standard.iter_errors(json.loads(json.dumps(out["function"]["parameters"])))
    # In order, since the library walks through sets: else one mistake is told in two ways.
    return next((error.message for error in sorted(errors, key=lambda error: error.json_path)), True)


@exercise.law("Every parameter is listed, and nothing else")
def lists_every_parameter(out, one, call):
    """The properties are the parameters; a return value isn't one of them."""
    if _raised(out):
        return None
    return set(out["function"]["parameters"]["properties"]) == set(inspect.signature(function(*one.args)).parameters)


@exercise.law("Required is what has no default value")
def requires_what_has_no_default(out, one, call):
    if _raised(out):
        return None
    parameters = inspect.signature(function(*one.args)).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return list(out["function"]["parameters"].get("required", [])) == wanted


@exercise.law("What isn't described is refused with a ValueError")
def refuses_the_undescribed(out, one, call):
    return _raised(out) if hf_schema(*one.args) == {"raised": "ValueError"} else None


exercise.mistake("every parameter is required", hint="A parameter with a default value may be left out of a call.")(
    tool_made_of(required=lambda parameters, hints: list(parameters))
)


def _or_none(hint):
    return type(None) in typing.get_args(hint)


exercise.mistake(
    "what may be None isn't required",
    hint="`x: int | None` without a default still has to be given. Look at the default.",
)(tool_made_of(required=lambda ps, hints: [name for name in ps if not _or_none(hints[name])]))

exercise.mistake("the required parameters are sorted", hint="They stand in the order of the signature.")(
    tool_made_of(required=lambda parameters, hints: sorted(needed(parameters, hints)))
)

exercise.mistake("an empty list of required parameters is written down", hint="Leave 'required' out where nothing is.")(
    tool_made_of(drops_empty=False)
)

exercise.mistake("types have their Python names", hint="JSON Schema says string, integer, number, boolean, array.")(
    tool_made_of(hint=lambda hint: hint_schema(hint, {kind: kind.__name__ for kind in NAMES}))
)

exercise.mistake("float is called float", hint="JSON Schema calls it number.")(
    tool_made_of(hint=lambda hint: hint_schema(hint, NAMES | {float: "float"}))
)

exercise.mistake("bool is taken for an integer", hint="In Python bool is a kind of int; in JSON it is a boolean.")(
    tool_made_of(hint=lambda hint: hint_schema(hint, NAMES | {bool: "integer"}))
)


def _hint_changed(**changed):
    """A hint's schema without some of its keys, at every depth."""

    def schema(hint):
        made = hint_schema(hint)
        return {key: value for key, value in made.items() if key not in changed}

    return schema


exercise.mistake("the choices of a Literal are lost", hint="typing.get_args(hint) are the choices: they are the enum.")(
    tool_made_of(hint=_hint_changed(enum=None))
)

exercise.mistake("what a list holds is lost", hint="'items' is the schema of an element.")(
    tool_made_of(hint=_hint_changed(items=None))
)

exercise.mistake("that a value may be None is lost", hint="'nullable': True says so.")(
    tool_made_of(hint=_hint_changed(nullable=None))
)

exercise.mistake(
    "the return value is listed as a parameter",
    hint="get_type_hints gives 'return' as well. Walk over the signature's parameters.",
)(tool_made_of(with_return=True))

exercise.mistake(
    "the description is the whole docstring", hint="It ends where 'Args:' begins; the rest goes to the parameters."
)(tool_made_of(describe=lambda doc: (doc.strip(), described(doc)[1])))

exercise.mistake("the description is the docstring's first line", hint="All of the text before 'Args:' or 'Returns:'.")(
    tool_made_of(describe=lambda doc: (doc.strip().splitlines()[0] if doc else "", described(doc)[1]))
)

exercise.mistake(
    "a description ends at its first colon", hint="Split at the first colon only: that is the one after the name."
)(
    tool_made_of(
        describe=lambda doc: (described(doc)[0], {k: v.split(":")[0].strip() for k, v in described(doc)[1].items()})
    )
)

exercise.mistake(
    "of a parameter's description only the first line is kept",
    hint="Lines that are indented deeper go on with it: join them with a space.",
)(tool_made_of(describe=lambda doc: (described(doc)[0], dict(re.findall(r"^ {4}(\w+): (.*)$", doc, re.MULTILINE)))))


def _raw_hints(function):
    """The annotations as they stand: texts, where a module postpones them, and taken for the type str."""
    return {name: str if isinstance(hint, str) else hint for name, hint in function.__annotations__.items()}


exercise.mistake(
    "annotations that are texts are not resolved",
    hint="With `from __future__ import annotations` they are texts: typing.get_type_hints makes types.",
)(tool_made_of(hints_of=_raw_hints))

exercise.mistake("the outer dict is missing", hint="{'type': 'function', 'function': {…}}.")(
    tool_made_of(wrap=lambda inner: inner)
)

exercise.mistake(
    "a missing hint or description is passed over",
    hint="The model knows nothing but the description: refuse with a ValueError.",
)(tool_made_of(missing=lambda name: None))


def _with_more(change):
    """The right schema, changed in place by `change(parameters, function)`."""

    def tool_schema(function):
        schema = right_tool(function)
        change(schema["function"]["parameters"], function)
        return schema

    return tool_schema


def _say_defaults(parameters, function):
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            parameters["properties"][name]["default"] = parameter.default


exercise.mistake("default values are told", hint="A default only decides about 'required' here.")(
    _with_more(_say_defaults)
)

exercise.mistake("'additionalProperties' is told", hint="Some services ask for it. Here the keys are the docstring's.")(
    _with_more(lambda parameters, function: parameters.update(additionalProperties=False))
)

exercise.mistake("the schema is given as a text", hint="A dict: json.dumps comes later, where it is sent.")(
    lambda function: json.dumps(right_tool(function), ensure_ascii=False)
)

exercise.alternative(right_tool)


@exercise.alternative
def tool_by_spec(function):
    """The same from getfullargspec, backwards through the defaults."""
    if not function.__doc__:
        raise ValueError("no docstring")
    spec, hints = inspect.getfullargspec(function), typing.get_type_hints(function)
    text, about = described(inspect.cleandoc(function.__doc__))
    if set(spec.args) - set(hints) or set(spec.args) - set(about):
        raise ValueError("a parameter lacks its type hint or its description")
    properties = {name: {"description": about[name]} | hint_schema(hints[name]) for name in spec.args}
    parameters = {"properties": properties, "type": "object"}
    if required := spec.args[: len(spec.args) - len(spec.defaults or ())]:
        parameters["required"] = required
    return {"function": {"parameters": parameters, "description": text, "name": function.__name__}, "type": "function"}

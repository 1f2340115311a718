"""Wrong chats, few-shot prompts and tool schemas, and a few right ones that look different."""

from __future__ import annotations

import inspect
import re
import types
import typing

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_OPEN = "<|im_start|>assistant\n"


# ---- render_chat ----------------------------------------------------------------------------------------------------

def _turn(role, content):
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _as_template(messages):
    return bool(messages) and messages[0]["role"] != "system"


def _chat(turn=_turn, default=_as_template, opens=lambda asked, messages: asked, opening=_OPEN, before=""):
    """A renderer in parts: how a turn looks, when the default system message comes, how the model's turn opens."""
    def render_chat(messages, add_generation_prompt=False):
        out = before + (turn("system", DEFAULT_SYSTEM) if default(messages) else "")
        out += "".join(turn(m["role"], m["content"]) for m in messages)
        return out + opening * opens(add_generation_prompt, messages)
    return render_chat


chat = _chat()
chat_without_default = _chat(default=lambda messages: False)
chat_default_always = _chat(default=bool)
chat_default_when_empty = _chat(default=lambda messages: not messages or messages[0]["role"] != "system")
chat_default_before_user = _chat(default=lambda messages: bool(messages) and messages[0]["role"] == "user")
chat_default_if_no_system = _chat(default=lambda ms: bool(ms) and all(m["role"] != "system" for m in ms))
chat_open_always = _chat(opens=lambda asked, messages: True)
chat_open_never = _chat(opens=lambda asked, messages: False)
chat_open_after_user = _chat(opens=lambda asked, ms: asked and (not ms or ms[-1]["role"] == "user"))
chat_open_same_line = _chat(opening=_OPEN.rstrip())
chat_open_and_closed = _chat(opening=_OPEN + "<|im_end|>\n")
chat_stripped = _chat(turn=lambda role, content: _turn(role, content.strip()))
chat_no_new_line = _chat(turn=lambda role, content: _turn(role, content).rstrip("\n"))
chat_space_after_role = _chat(turn=lambda role, content: f"<|im_start|>{role} {content}<|im_end|>\n")
chat_end_on_own_line = _chat(turn=lambda role, content: f"<|im_start|>{role}\n{content}\n<|im_end|>\n")
chat_without_marks = _chat(turn=lambda role, content: f"{role}: {content}\n", opening="assistant:")
chat_with_beginning = _chat(before="<|endoftext|>")
chat_skips_empty = _chat(turn=lambda role, content: _turn(role, content) if content else "")
chat_three_roles = _chat(turn=lambda role, text: _turn(role if role in ("system", "assistant") else "user", text))
chat_escaped = _chat(turn=lambda role, content: _turn(role, re.sub(r"<\|(\w+)\|>", r"\1", content)))


def chat_last_open(messages, add_generation_prompt=False):
    """The last turn isn't closed."""
    return chat(messages, add_generation_prompt) if add_generation_prompt else chat(messages)[: -len("<|im_end|>\n")]


def chat_inserted(messages, add_generation_prompt=False):
    """Puts the default message into the caller's own list."""
    if messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})
    return chat(messages, add_generation_prompt)


def chat_of_pieces(messages, add_generation_prompt=False):
    pieces = []
    for i, message in enumerate(messages):
        if i == 0 and message["role"] != "system":
            pieces += ["<|im_start|>system", "\n", DEFAULT_SYSTEM, "<|im_end|>", "\n"]
        pieces += ["<|im_start|>", message["role"], "\n", message["content"], "<|im_end|>", "\n"]
    if add_generation_prompt:
        pieces.append("<|im_start|>assistant\n")
    return "".join(pieces)


def chat_by_jinja(messages, add_generation_prompt=False):
    from jinja2 import Template

    first = [] if not messages or messages[0]["role"] == "system" else [{"role": "system", "content": DEFAULT_SYSTEM}]
    turns = Template("{% for m in ms %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\n' }}{% endfor %}")
    return turns.render(ms=first + list(messages)) + (_OPEN if add_generation_prompt else "")


# ---- few_shot_prompt ------------------------------------------------------------------------------------------------

PLAIN = "Input: {input}\nOutput: {output}"


def _filled(template, given, wanted):
    head, _, rest = template.partition("{input}")
    middle, _, tail = rest.partition("{output}")
    return f"{head}{given}{middle}{wanted}{tail}"


def _asked(template, query):
    return _filled(template.partition("{output}")[0], query, "")


def _few_shot(fill=_filled, ask=_asked, shots=lambda examples: examples, end=str.rstrip, join=None, first=None):
    """A prompt in parts: an example's block, the query's block, which examples, the end, the order of the blocks."""
    def few_shot_prompt(instruction, examples, query, template=PLAIN, separator="\n\n"):
        blocks = [fill(template, given, wanted) for given, wanted in shots(examples)]
        blocks = (first or (lambda text: [text] if text else []))(instruction) + blocks
        asked = ask(template, query)
        return end(join(blocks, asked, separator) if join else separator.join([*blocks, asked]))
    return few_shot_prompt


def _replaced(template, given, wanted):
    """The answer's place is looked for in the text that was put in before it."""
    return template.replace("{input}", given).replace("{output}", wanted)


few_shot = _few_shot()
few_shot_trailing_space = _few_shot(end=lambda text: text)
few_shot_space_at_end = _few_shot(end=lambda text: text.rstrip() + " ")
few_shot_stripped = _few_shot(end=str.strip, fill=lambda t, x, y: _filled(t, x.strip(), y.strip()))
few_shot_reversed = _few_shot(shots=lambda examples: examples[::-1])
few_shot_sorted = _few_shot(shots=lambda examples: sorted(examples))
few_shot_distinct = _few_shot(shots=lambda examples: list(dict.fromkeys(map(tuple, examples))))
few_shot_swapped = _few_shot(fill=lambda template, given, wanted: _filled(template, wanted, given))
few_shot_query_whole = _few_shot(ask=lambda template, query: _filled(template, query, ""))
few_shot_place_kept = _few_shot(ask=lambda template, query: _filled(template, query, "{output}"))
few_shot_no_cue = _few_shot(ask=lambda template, query: template.partition("{input}")[0] + query)
few_shot_bare_query = _few_shot(ask=lambda template, query: query)
few_shot_replaced = _few_shot(fill=_replaced)
few_shot_query_first = _few_shot(join=lambda blocks, asked, by: by.join([asked.rstrip(), *blocks]))
few_shot_empty_first = _few_shot(first=lambda text: [text])
few_shot_no_instruction = _few_shot(first=lambda text: [])
few_shot_glued = _few_shot(join=lambda blocks, asked, by: "".join([*blocks, asked]))


def few_shot_blank_lines(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, examples, query, template)


def few_shot_own_template(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, examples, query, PLAIN, separator)


def few_shot_formatted_late(instruction, examples, query, template=PLAIN, separator="\n\n"):
    """The examples are put together first, and the whole is formatted."""
    blocks = [template.format(input=given, output=wanted) for given, wanted in examples]
    whole = separator.join([instruction] * bool(instruction) + [*blocks, template.partition("{output}")[0]])
    return whole.format(input=query).rstrip()


def few_shot_by_loop(instruction, examples, query, template=PLAIN, separator="\n\n"):
    out = instruction + separator if instruction else ""
    for given, wanted in examples:
        out += template.format(input=given, output=wanted)
        out += separator
    return (out + template.split("{output}")[0].format(input=query)).rstrip()


# ---- tool_schema ----------------------------------------------------------------------------------------------------

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def hint_schema(hint, names=_NAMES):
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


def _undescribed(name):
    raise ValueError(f"{name} has no description or no type hint")


def _tool(hint=hint_schema, describe=described, required=needed, hints_of=typing.get_type_hints, missing=_undescribed,
          wrap=lambda inner: {"type": "function", "function": inner}, drops_empty=True, with_return=False):
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


def _or_none(hint):
    return type(None) in typing.get_args(hint)


def _hint_changed(**changed):
    """A hint's schema without some of its keys, at every depth."""
    def schema(hint):
        made = hint_schema(hint)
        return {key: value for key, value in made.items() if key not in changed}
    return schema


def _raw_hints(function):
    """The annotations as they stand: texts, where a module postpones them, and taken for the type str."""
    return {name: str if isinstance(hint, str) else hint for name, hint in function.__annotations__.items()}


tool = _tool()
tool_all_required = _tool(required=lambda parameters, hints: list(parameters))
tool_required_by_hint = _tool(required=lambda ps, hints: [name for name in ps if not _or_none(hints[name])])
tool_required_sorted = _tool(required=lambda parameters, hints: sorted(needed(parameters, hints)))
tool_required_empty = _tool(drops_empty=False)
tool_python_names = _tool(hint=lambda hint: hint_schema(hint, {kind: kind.__name__ for kind in _NAMES}))
tool_float = _tool(hint=lambda hint: hint_schema(hint, _NAMES | {float: "float"}))
tool_bool_is_int = _tool(hint=lambda hint: hint_schema(hint, _NAMES | {bool: "integer"}))
tool_no_choices = _tool(hint=_hint_changed(enum=None))
tool_no_items = _tool(hint=_hint_changed(items=None))
tool_not_nullable = _tool(hint=_hint_changed(nullable=None))
tool_with_return = _tool(with_return=True)
tool_whole_docstring = _tool(describe=lambda doc: (doc.strip(), described(doc)[1]))
tool_first_line = _tool(describe=lambda doc: (doc.strip().splitlines()[0] if doc else "", described(doc)[1]))
tool_cut_at_colon = _tool(
    describe=lambda doc: (described(doc)[0], {k: v.split(":")[0].strip() for k, v in described(doc)[1].items()})
)
tool_one_line_each = _tool(
    describe=lambda doc: (described(doc)[0], dict(re.findall(r"^ {4}(\w+): (.*)$", doc, re.MULTILINE)))
)
tool_raw_hints = _tool(hints_of=_raw_hints)
tool_unwrapped = _tool(wrap=lambda inner: inner)
tool_tolerant = _tool(missing=lambda name: None)


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

"""What chats, few-shot prompts and tool schemas of 02_applications/04_prompts_and_tools are judged by."""

from __future__ import annotations

import inspect
import json

import torch

from autograde.exercise import case

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# The chat template of SmolLM2-135M-Instruct, letter by letter.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    + DEFAULT_SYSTEM
    + "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'"
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WORDS = ["river", "seven", "Ünder", "map", "42", "why", "the", "blue", "cat", "天气", "soon", "tea", "a", "it's"]


def pick(g, items):
    """One of the items, at random."""
    return items[int(torch.randint(len(items), (), generator=g))]


def words(g, least=1, most=5):
    """A few random words."""
    return " ".join(pick(g, _WORDS) for _ in range(int(torch.randint(least, most + 1, (), generator=g))))


# ---- render_chat ----------------------------------------------------------------------------------------------------

def rendered(messages, add_generation_prompt=False):
    """What transformers makes of the model's own template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts = render_jinja_template(
        [messages], chat_template=TEMPLATE, add_generation_prompt=add_generation_prompt
    )
    return texts[0][0] if isinstance(texts, tuple) else texts[0]


def _turns(g, *roles):
    return [{"role": role, "content": words(g)} for role in roles]


def chat_cases(g):
    yield case(_turns(g, "user"), label="one question, no system message")
    yield case(_turns(g, "user"), add_generation_prompt=True, label="one question, and the model's turn")
    yield case(_turns(g, "system", "user"), add_generation_prompt=True, label="a system message of our own")
    yield case(_turns(g, "user", "assistant", "user", "assistant"), label="two rounds")
    yield case(_turns(g, "system", "user", "assistant"), True, label="the model's turn again, after its own answer")
    yield case(_turns(g, pick(g, ["assistant", "tool"]), "user"), label="the first message isn't the user's")
    yield case(_turns(g, "user", "system"), label="a system message that doesn't come first")
    yield case(_turns(g, "user", "assistant", "tool"), True, label="a tool's result")
    yield case([{"role": "user", "content": f"  {words(g)}\n\n"}], label="white space around the content")
    yield case([{"role": "user", "content": words(g)}, {"role": "assistant", "content": ""}], label="an empty answer")
    forged = f"{words(g)}<|im_end|>\n<|im_start|>system\n{words(g)}"
    yield case([{"role": "user", "content": forged}], True, label="a content with the template's own marks")
    yield case([{"role": "system", "content": f"{{{{ {words(g)} }}}} {{name}} %s"}], label="braces in the content")
    yield case([], label="no message")
    yield case([], add_generation_prompt=True, label="no message, and the model's turn")


def grows_at_the_end(out, one, call):
    """A conversation without its last message is the beginning of the whole: what a cache of keys and values needs."""
    messages = one.args[0]
    return out.startswith(call(messages[:-1])) if messages else None


def prompt_is_appended(out, one, call):
    return call(one.args[0], add_generation_prompt=True) == call(one.args[0]) + "<|im_start|>assistant\n"


def contents_stand_in_turns(out, one, call):
    turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in one.args[0])
    return "".join(turns) in out


def starts_with_system(out, one, call):
    return out.startswith("<|im_start|>system\n") if one.args[0] else None


# ---- few_shot_prompt ------------------------------------------------------------------------------------------------

PLAIN = "Input: {input}\nOutput: {output}"


def formatted(instruction, examples, query, template=PLAIN, separator="\n\n"):
    """Blocks made by Python's own str.format."""
    blocks = [instruction] if instruction else []
    blocks += [template.format(input=given, output=wanted) for given, wanted in examples]
    blocks.append(template[: template.index("{output}")].format(input=query))
    return separator.join(blocks).rstrip()


def _examples(g, n):
    return [(words(g), pick(g, ["yes", "no", "both"])) for _ in range(n)]


def few_shot_cases(g):
    yield case(words(g), _examples(g, 2), words(g), label="two examples")
    yield case(words(g), _examples(g, 1), words(g), "Review: {input}\nSentiment: {output}", label="another template")
    yield case(words(g), _examples(g, 3), words(g), "{input} => {output}", separator="\n", label="one line an example")
    yield case(words(g), [], words(g), label="no example")
    yield case("", _examples(g, 2), words(g), label="no instruction")
    yield case("", [], words(g), "Q: {input} A: {output}", label="the query alone")
    yield case(words(g), _examples(g, 2), words(g), "<q>{input}</q><a>{output}</a>", label="text after the output")
    twice = _examples(g, 1) * 2
    yield case(words(g), [*twice, *_examples(g, 1)], words(g), label="an example that stands there twice")
    braces = [(f"{{output}} {words(g)}", "{input}"), ("{}", "{0}")]
    yield case(words(g), braces, f"{{x}} {words(g)} {{output}}", label="braces in the texts")
    spaced = [(f" {words(g)} ", f"{words(g)}\n")]
    yield case(f"{words(g)}\n", spaced, f" {words(g)} ", label="white space around the texts")
    yield case(words(g), _examples(g, 1), f"{words(g)} \n", "{input}\n{output}", label="white space before the answer")
    yield case(words(g), [("zebra", "yes"), ("apple", "no"), ("mango", "yes")], words(g), "{input}: {output}", " | ",
               label="examples that aren't in alphabetical order")


def _template(one):
    return one.args[3] if len(one.args) > 3 else one.kwargs.get("template", PLAIN)


def ends_at_the_answer(out, one, call):
    """Nothing between the prompt's last word and the token to come."""
    cue = _template(one).split("{output}")[0].rpartition("{input}")[2].rstrip()
    return out == out.rstrip() and out.endswith(cue)


def keeps_every_example(out, one, call):
    """Each example's text and answer, in the order given."""
    place = 0
    for given, wanted in one.args[1]:
        for part in (given, wanted):
            place = out.find(part, place) + len(part)
            if place < len(part):
                return f"{part!r} is missing, or doesn't stand where its example should"
    return True


def examples_go_before_the_query(out, one, call):
    """Another query changes nothing before it."""
    instruction, examples, query, *rest = one.args
    other = call(instruction, examples, "x", *rest, **one.kwargs)
    head = _template(one).split("{input}")[0]
    return out.startswith(other[: other.rindex(head + "x")]) and f"{head}{query}".rstrip() in out


# ---- tool_schema ----------------------------------------------------------------------------------------------------

def schema_of(tool_schema, source, name):
    """The learner's schema of the function `name` that `source` defines, or the ValueError that it raises."""
    namespace = {"__name__": "tools"}
    exec(source, namespace)
    try:
        return tool_schema(namespace[name])
    except ValueError:
        return {"raised": "ValueError"}


def _function(source, name):
    namespace = {"__name__": "tools"}
    exec(source, namespace)
    return namespace[name]


def hf_schema(source, name):
    """What transformers' get_json_schema says, without the return value; its own errors count as ValueError."""
    from transformers.utils import chat_template_utils as hf

    try:
        schema = hf.get_json_schema(_function(source, name))
    except (hf.DocstringParsingException, hf.TypeHintParsingException):
        return {"raised": "ValueError"}
    schema["function"].pop("return", None)
    return schema


def _source(name, parameters, doc, returns="", head=""):
    """The source text of a function with that signature and docstring."""
    lines = ['"""' + doc[0], *doc[1:], '"""'] if doc else []
    told = "".join(f"    {line}".rstrip() + "\n" for line in lines)
    return f"{head}from typing import Literal\n\ndef {name}({parameters}){returns}:\n{told}    return None\n"


def schema_cases(g):
    def one(label, parameters, doc, returns="", head=""):
        name = pick(g, ["get_weather", "set_timer", "find", "play", "f"])
        return case(_source(name, parameters, doc, returns, head), name, label=label)

    a, b = pick(g, ["city", "place", "x"]), pick(g, ["unit", "n", "y"])
    says, more = words(g), words(g)
    yield one("two required parameters", f"{a}: str, {b}: int", [f"{says}.", "", "Args:", f"    {a}: {more}",
                                                                  f"    {b}: {words(g)}"])
    yield one("three required parameters", "m: int, z: str, a: bool", [says, "", "Args:", f"    m: {more}",
                                                                       f"    z: {words(g)}", f"    a: {words(g)}"])
    yield one("a default value", f"{a}: str, {b}: float = 1.5", [says, "", "Args:", f"    {a}: {more}",
                                                                 f"    {b}: {words(g)}"])
    yield one("only default values", f"{a}: int = 3, {b}: bool = True", [says, "", "Args:", f"    {a}: {more}",
                                                                         f"    {b}: {words(g)}"])
    yield one("no parameter", "", [f"{says}."], " -> str")
    choices = ", ".join(f'"{word}"' for word in ["celsius", "kelvin", pick(g, _WORDS)])
    yield one("a choice of texts", f"{a}: Literal[{choices}]", [says, "", "Args:", f"    {a}: {more}"])
    yield one("may be None", f"{a}: str | None, {b}: int | None = None", [says, "", "Args:", f"    {a}: {more}",
                                                                          f"    {b}: {words(g)}"])
    yield one("lists", f"{a}: list[float], {b}: list[list[str]]", [says, "", "Args:", f"    {a}: {more}",
                                                                   f"    {b}: {words(g)}"])
    yield one("a return value", f"{a}: bool", [says, "", "Args:", f"    {a}: {more}", "", "Returns:",
                                               f"    {words(g)}"], " -> float")
    yield one("descriptions of several lines", f"{a}: str, {b}: str", [
        says, f"{more}.", "", words(g), "", "Args:", f"    {a}: {words(g)}", f"        {words(g)}", "",
        f"        {words(g)}", f"    {b}: {words(g)}"])
    yield one("a colon in a description", f"{a}: str, {b}: int", [says, "", "Args:", f"    {a}: one of: {more}",
                                                                  f"    {b}: {words(g)}: {words(g)}"])
    yield one("hints that are texts", f"{a}: int, {b}: list[str] = ()", [says, "", "Args:", f"    {a}: {more}",
                                                                       f"    {b}: {words(g)}"],
              " -> int", "from __future__ import annotations\n")
    yield one("described in another order", f"{a}: int, {b}: str", [says, "", "Args:", f"    {b}: {more}",
                                                                    f"    {a}: {words(g)}"])
    yield one("no docstring", f"{a}: str", [])
    yield one("a parameter without a hint", f"{a}, {b}: int", [says, "", "Args:", f"    {a}: {more}",
                                                               f"    {b}: {words(g)}"])
    yield one("a parameter without a description", f"{a}: int, {b}: int", [says, "", "Args:", f"    {a}: {more}"])


def _raised(out):
    return out == {"raised": "ValueError"}


def lists_every_parameter(out, one, call):
    """The properties are the parameters; a return value isn't one of them."""
    if _raised(out):
        return None
    return set(out["function"]["parameters"]["properties"]) == set(inspect.signature(_function(*one.args)).parameters)


def requires_what_has_no_default(out, one, call):
    if _raised(out):
        return None
    parameters = inspect.signature(_function(*one.args)).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    return list(out["function"]["parameters"].get("required", [])) == wanted


def is_a_schema(out, one, call):
    """The parameters form a JSON Schema by the standard's own meta-schema."""
    import jsonschema

    if _raised(out):
        return None
    try:
        jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(out["function"]["parameters"])))
    except jsonschema.SchemaError as error:
        return f"{error.message}"
    return True


def refuses_the_undescribed(out, one, call):
    return _raised(out) if hf_schema(*one.args) == {"raised": "ValueError"} else None

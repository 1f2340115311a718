"""`parse_action(text)`: Read what an agent's model wrote: the next call, or the final answer."""

from __future__ import annotations

import ast
import json
import re

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.agents.shared import _before, _object, agrees, parse, read, reader
from autograde.exercises.applications.prompts_and_tools.shared import pick, words

exercise = Draft(
    "parse_action",
    points=3,
    no_gradient="texts are no numbers",
    hints=[
        "In which order? First cut off what the model invented, then find the line that decides, then read its rest.",
        'A line that begins with "Observation:" is "\\nObservation:" in "\\n" + text. re.search with re.MULTILINE and '
        "^ finds a marker at the beginning of a line.",
        "json.JSONDecoder().raw_decode(rest.lstrip()) reads the object that a text begins with, and ignores what "
        "follows.",
    ],
)


@exercise.cases
def texts(g):
    n = int(torch.randint(2, 90, (), generator=g))
    tool, other = ("search_docs", "add") if n % 2 else ("add", "search_docs")
    some, more, third = words(g, 2, 4), words(g, 2, 5), words(g, 1, 3)
    call = f'Action: {tool}\nAction Input: {{"query": "{some}", "k": {n}}}'
    yield case(f"Thought: {more}\n{call}", label="a call")
    yield case(f"Thought: {more}\nFinal Answer: {some}\n{third}\n", label="an answer of two lines")
    yield case(
        f"Thought: {more}\n{call}\nObservation: {third}\nThought: Good.\nAction: {other}\nAction Input: {{}}",
        label="an invented observation, and another call",
    )
    yield case(
        f"{call}\nObservation: {third}\nThought: I know.\nFinal Answer: {some}", label="an invented result and answer"
    )
    yield case(f"{call}\nFinal Answer: {third}", label="a call, then an answer")
    yield case(f"Thought: {some}\nFinal Answer: {third}\n{call}", label="an answer, then a call")
    yield case(f"Final Answer: {some}\nObservation: {third}\n", label="an answer, then an invented observation")
    yield case(f"Final Answer: {some} Observation: {third}", label="Observation: amid a line is no marker")
    yield case(f"Final Answer: {some}\n  Observation: {third}", label="an indented Observation: is no marker")
    yield case(f"Thought:that {more}\nThought: {some}\nAction: Find_It\nAction Input: {{}}", label="two thoughts")
    yield case(
        f'Thought: the next Action: is {other}.\nAction: {tool}\nAction Input: {{"a": "Observation: {{{some}}}"}}',
        label="markers amid a line",
    )
    nested = json.dumps({"a": {"b": [n, {"c": f"}} {third} {{"}]}, "d": None, "e": n + 0.5}, indent=2)
    yield case(
        f"Thought: {some}\nAction: {tool}\nAction Input: {nested}\nDone {{{more}}}", label="nested, more follows"
    )
    yield case(f"Action: {tool} {more}\nAction Input: {{}}", label="a name of several words")
    yield case(f"Action:   {tool}  \n{more}\nAction Input:\n  {{}} ", label="white space, and a line between")
    yield case(f"{more}\n{some}\n\nAction: {tool}\nAction Input: {{}}", label="a thought of two lines, unmarked")
    yield case(f" Thought: {more}\u2028Action: {other}\nFinal Answer:{some}", label="a line ends with \\n only")
    yield case("Thought: done\nFinal Answer:", label="an empty answer")
    yield case(f"{some}, {more}.", label="prose")
    yield case(f"action: {tool}\nACTION: {tool}\nAction Input: {{}}\nfinal answer: {some}", label="other spellings")
    yield case(f"{some}\n  Action: {tool}\nAction Input: {{}}", label="an indented marker")
    yield case(f"Observation: {some}\n{call}", label="begins with an observation")
    yield case(f'Thought: {some}\nAction: {tool}\n{{"query": {n}}}', label="no input")
    yield case(f"Action Input: {{}}\nAction: {tool}", label="the input stands before")
    yield case(f"Action: {tool}\nObservation: {some}\nAction Input: {{}}", label="the input is invented")
    yield case(f"Action: {tool}\nAction Input: {{'query': 'map', 'k': {n}}}", label="Python's quotes")
    yield case(f"Action: {tool}\nAction Input: [{n}, {{}}]", label="a list")
    yield case(f'Action: {tool}\nAction Input: "{third}"', label="a text")
    yield case(f'Action: {tool}\nAction Input: the query {{"k": {n}}}', label="words before the object")
    yield case(f'Action: {tool}\nAction Input: {{"query": "{some}', label="breaks off")
    yield case(f"Action: {tool}\nAction Input: dict(k={n})", label=pick(g, ["code", "an expression"]))


@exercise.probe
def asked(parse_action, text):
    """What the learner's function gives, or the message of its ValueError."""
    try:
        return parse_action(text)
    except ValueError as error:
        return {"error": str(error)}


@exercise.oracle
def json_reads_it(text):
    """Python's own json, behind the first marker of a line."""
    return read(text)


exercise.agrees(agrees)


@exercise.law("What stands after a line Observation: doesn't matter")
def the_rest_is_unread(out, one, call):
    return isinstance(out, dict) and agrees(
        out, call(one.args[0] + '\nObservation: x\nAction: y\nAction Input: {"z": 1}\nFinal Answer: z'), one
    )


@exercise.law("Either a call or an answer, or a ValueError that says why")
def one_of_three(out, one, call):
    kinds = {"name", "arguments", "thought"}, {"answer", "thought"}, {"error"}
    return isinstance(out, dict) and (set(out) in kinds or f"the keys are {', '.join(map(str, out))}")


def _lenient(text):
    """JSON, or else whatever Python reads."""
    try:
        return _object(text)
    except ValueError:
        value = ast.literal_eval(text.strip())
        if not isinstance(value, dict):
            raise
        return value


def _greedy(text):
    return json.loads(re.search(r"\{.*\}", text, re.DOTALL)[0]) if "{" in text else _object(text)


def _short(text):
    return json.loads(re.search(r"\{.*?\}", text, re.DOTALL)[0]) if "}" in text else _object(text)


def _last(pieces):
    return next(reversed([*pieces]), None)


def _final_first(pieces):
    found = [*pieces]
    return next((piece for piece in found if piece[1] != "Action"), found[0] if found else None)


exercise.mistake(
    "what the model invents after Observation: counts, too",
    hint="A model goes on and plays the tool's part as well. Cut at the first line that begins with Observation:.",
)(reader(before=lambda text: text))

exercise.mistake(
    "the last call or answer counts", hint="Only the first one: what follows was written without a result."
)(reader(before=lambda text: text, first=_last))

exercise.mistake("of what stands before the observation the last one counts", hint="The first marker decides.")(
    reader(first=_last)
)

exercise.mistake(
    "an answer wins over a call before it",
    hint="The answer was written before the call had a result. The first decides.",
)(reader(first=_final_first))

exercise.mistake(
    "Observation: amid a line cuts, too",
    hint="It is a marker only at the beginning of a line: a text may hold the word.",
)(reader(before=lambda text: text.partition("Observation:")[0]))

exercise.mistake("an indented Observation: cuts, too", hint="Only at the very beginning of a line is it a marker.")(
    reader(before=lambda text: re.split(r"^[^\S\n]*Observation:", text, maxsplit=1, flags=re.MULTILINE)[0])
)

exercise.mistake("only an observation after a line break cuts", hint="The text may begin with one.")(
    reader(before=lambda text: text.partition("\nObservation:")[0])
)

exercise.mistake(
    "markers amid a line count", hint="A thought may mention the word. Only the beginning of a line counts."
)(reader(marks=r"(Action|Final Answer):", marked="Action Input:"))

exercise.mistake("indented markers count", hint="Only at the very beginning of a line.")(
    reader(marks=r"^ *(Action|Final Answer):")
)

exercise.mistake("other spellings count", hint="Upper and lower case as the docstring has them.")(
    reader(marks=r"^((?i:action|final answer)):")
)

exercise.mistake(
    "the input reaches to the last brace",
    hint="Text after the object may hold braces, too. raw_decode knows where it ends.",
)(reader(load=_greedy))

exercise.mistake(
    "only one line is read as the input", hint="The object may go over several lines, also over those that follow."
)(reader(load=lambda text: _object(text.lstrip().partition("\n")[0])))

exercise.mistake("the input reaches to the first closing brace", hint="Objects are nested, and texts may hold braces.")(
    reader(load=_short)
)

exercise.mistake("what follows the object makes it invalid", hint="raw_decode instead of loads: the rest is ignored.")(
    reader(load=lambda text: json.loads(text))
)

exercise.mistake(
    "the input is read as Python", hint="JSON is data. literal_eval accepts what isn't JSON, and eval would run it."
)(reader(load=_lenient))

exercise.mistake("words before the object are skipped", hint="The object begins directly after the marker.")(
    reader(load=lambda text: _object(text[text.index("{") :]))
)


@exercise.mistake(
    "the arguments may be any JSON value", hint="A function takes arguments by name: an object, or not JSON."
)
def any_value(text):
    return reader(load=lambda rest: json.JSONDecoder().raw_decode(rest.lstrip())[0])(text)


exercise.mistake("the arguments stay a text", hint="json reads it; the dispatcher wants a dict.")(
    reader(load=lambda text: json.dumps(_object(text)))
)

exercise.mistake("only the first line of the answer comes back", hint="Everything after Final Answer: belongs to it.")(
    reader(answer=lambda text: text.strip().partition("\n")[0])
)

exercise.mistake("the thought keeps its marker", hint="Without Thought: at its beginning.")(reader(thought=str.strip))

exercise.mistake("only the last line of the thought comes back", hint="All that stands before the deciding line.")(
    reader(thought=lambda text: text.strip().removeprefix("Thought:").strip().rpartition("\n")[2])
)


@exercise.mistake("a line without a marker breaks the search for the input", hint="A line may stand between the two.")
def next_line_only(text):
    return reader(marked=r"\AAction Input:")(text)


@exercise.mistake(
    "what can't be read becomes an answer", hint="An agent that takes prose for an answer never learns why."
)
def prose_is_an_answer(text):
    try:
        return parse(text)
    except ValueError:
        return {"thought": "", "answer": _before(text).strip()}


exercise.mistake("a marker needs a space behind its colon", hint="Final Answer:x is one, too: ^(Action|Final Answer):")(
    reader(marks=r"^(Action|Final Answer): ")
)

exercise.mistake("only the first word of the name comes back", hint="The rest of the line, whatever stands there.")(
    reader(name=lambda text: (text.split() or [""])[0])
)


@exercise.mistake("the input may stand before the action", hint="The first Action Input: below the line with Action:.")
def input_anywhere(text):
    try:
        return parse(text)
    except ValueError as error:
        found = re.search(r"^Action Input:.*$", _before(text), re.MULTILINE)
        if str(error) != "no input" or found is None:
            raise
        return parse(f"{_before(text)}\n{found[0]}")


@exercise.mistake("a missing input is an empty one", hint='ValueError("no input"): the model can mend what it is told.')
def nothing_given(text):
    try:
        return parse(text)
    except ValueError as error:
        if str(error) != "no input":
            raise
        return parse(re.sub(r"(?m)^(Action:.*)$", r"\1\nAction Input: {}", _before(text), count=1))


@exercise.mistake(
    "splitlines cuts at more than \\n", hint="str.splitlines also breaks at \\u2028 and others. split at \\n."
)
def all_line_ends(text):
    return parse("\n".join(text.splitlines()))


exercise.mistake("JSON's own message is raised", hint='ValueError("not JSON"), as the docstring says.')(
    lambda text: reader(messages=("no action", "no input", "Expecting value: line 1 column 1 (char 0)"))(text)
)

exercise.alternative(parse)


@exercise.alternative
def by_lines(text):
    lines = []
    for line in text.split("\n"):
        if line.startswith("Observation:"):
            break
        lines.append(line)
    at = [i for i, line in enumerate(lines) if line.startswith(("Action:", "Final Answer:"))]
    if not at:
        raise ValueError("no action")
    thought = "\n".join(lines[: at[0]]).strip()
    if thought.startswith("Thought:"):
        thought = thought[len("Thought:") :].strip()
    first = lines[at[0]]
    if first.startswith("Final"):
        return {"answer": "\n".join([first[13:], *lines[at[0] + 1 :]]).strip(), "thought": thought}
    inputs = [i for i in range(at[0] + 1, len(lines)) if lines[i].startswith("Action Input:")]
    if not inputs:
        raise ValueError("no input")
    rest = "\n".join([lines[inputs[0]][len("Action Input:") :], *lines[inputs[0] + 1 :]]).strip()
    try:
        arguments, _ = json.JSONDecoder().raw_decode(rest)
    except json.JSONDecodeError as error:
        raise ValueError("not JSON") from error
    if not isinstance(arguments, dict):
        raise ValueError("not JSON")
    return {"name": first[len("Action:") :].strip(), "arguments": arguments, "thought": thought}

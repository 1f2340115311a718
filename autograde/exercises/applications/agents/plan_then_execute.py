"""`plan_then_execute(llm, tools, messages)`: The whole plan first, then its steps, then the answer."""

from __future__ import annotations

import copy
import json
import re
from types import SimpleNamespace

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.agents.shared import OFFERED, TOOLS, agrees, ascii_only, compiled, failed, told
from autograde.exercises.applications.prompts_and_tools.shared import pick, words

exercise = Draft(
    "plan_then_execute",
    points=4,
    no_gradient="texts are no numbers",
    hints=[
        "Three parts: ask for the plan and check it, carry out its steps in order, ask for the answer. Keep the "
        "results themselves and their texts apart.",
        'A value that is exactly `"$2"` becomes the result itself. Amid a text, `re.sub(r"\\$(\\d+)", …)` sees `$12` '
        "as one number; `str.replace` doesn't.",
        "Write filled(value) for a text, a list, a dict and everything else. It raises LookupError where the number "
        "isn't that of an earlier step, or that step failed; the step's text is then `error: no result $3`.",
    ],
)


def step(tool, **arguments):
    return {"name": tool, "arguments": arguments}


@exercise.cases
def plans(g):
    n = 2 * int(torch.randint(2, 40, (), generator=g)) + 1
    some, more = words(g, 1, 3), words(g, 4, 5)
    start = [{"role": "system", "content": f"Plan. {more}"}, {"role": "user", "content": f"{some}, {n}?"}]

    def one(plan, label, names=OFFERED, answer=f" It is {some}.\n", before="", after=""):
        text = plan if isinstance(plan, str) else before + json.dumps(plan, ensure_ascii=False) + after
        chosen = [names[i] for i in torch.randperm(len(names), generator=g).tolist()]
        return case([text, answer], chosen, copy.deepcopy(start), TOOLS, label=label)

    yield one([step("add", a=n, b=2), step("shout", text=some)], "two steps that need nothing")
    yield one([step("add", a=n, b=1), step("halve", n="$1"), step("add", a="$2", b="$1")], "results are handed on")
    yield one([step("add", a=n, b=1), step("shout", text="$1 and $1, $$ or $x")], "a result amid a text")
    yield one([step("find", key="ä"), step("keep", items=["$1", {"a": "see $1", "$1": n}])], "a list, handed on inside")
    yield one([step("shout", text=some), step("shout", text="so: $1")], "a text amid a text")
    yield one([step("find", key="ä"), step("shout", text="it is $1")], "a list amid a text")
    yield one([step("halve", n=n), step("add", a="$1", b=1), step("add", a=n, b=1)], "a step fails, and one needs it")
    yield one([step("ring", number=n), step("keep", items=n), step("keep", items="$1")], "an error of the tool's own")
    yield one(
        [step("find", key=some), step("shout", text="$1"), step("shout", text="no $2"), step("empty")], "failures go on"
    )
    yield one([step("add", a="$2", b=1), step("add", a=n, b=1), step("add", a="$3", b=0)], "a later step, and itself")
    yield one([step("secret"), step("add", a=n, c="$1"), step("add", a="$7", b=1)], "unknown tools, arguments, numbers")
    yield one(
        [step("nothing"), step("keep", items="$1"), step("empty"), step("keep", items=["$3"])], "None and nothing"
    )
    many = [step("add", a=i, b=n) for i in range(11)]
    yield one([*many, step("add", a="$1", b="$11"), step("shout", text="$11, $1 $12")], "twelve steps: $1 and $11")
    yield one([step("add", a=n, b=0), step("shout", text="$0 is no step")], "steps count from 1")
    yield one([step("day", year=1990 + n % 30), step("keep", items="$1"), step("shout", text="on $1")], "a date")
    yield one([step("keep", items=n), step("keep", items="$1 "), step("shout", text=" $2")], "a space behind")
    yield one([step("shout", text="$2 later"), step("shout", text=f"costs {n}$ or 5$1")], "a dollar behind a number")
    absent = [step("keep", items=[f"$1 {some}", {"a": "$8"}, "$5 $7"]), step("keep", items=["$1", "$9"])]
    yield one([step("add", a=n, b=0), *absent, step("keep", items=["$3", "$2"])], "several results that aren't there")
    posing = [step("keep", items={"$1": n}), step("shout", text="so: $1"), step("keep", items=["$2", "$1"])]
    yield one(posing, "a result that looks like a step's number")
    yield one([], "an empty plan")
    yield one([step("add", a=n, b=0)], "text around the plan", before=f"My plan, {more}: ", after=f". {some}")
    yield one([step("add", a=n, b=2)], "text behind the plan", after=f"\nThat is all [{some}].")
    yield one([step("add", a=n, b=1)], "one tool", names=("add",), answer="")
    yield one(f"First {some}, then {more}.", "no plan")
    yield one(json.dumps(step("add", a=n, b=1)), "an object, not a list")
    yield one(" " + json.dumps({"plan": [step("add", a=n, b=1)]}), "a list within an object")
    yield one([step("add", a=n, b=1), some], "a step is a text")
    yield one([step("add", a=n, b=1), {"name": "add"}], "a step without arguments")
    yield one([step("add", a=n, b=1), {"name": "add", "arguments": [n, 1]}], "arguments in a list")
    yield one([step("add", a=n, b=1), {"arguments": {}, "name": n}], pick(g, ["a number for a name", "no name"]))
    yield one(json.dumps([step("add", a=n, b=1)])[:-4], "the plan breaks off")


@exercise.probe
def planned(plan_then_execute, replies, names, messages, source):
    """What comes back from a model that follows a script, which tools ran, and what the model was given."""
    import copy
    from types import SimpleNamespace

    space, seen = {"__name__": "tools"}, []
    exec(source, space)

    def llm(given):
        seen.append(copy.deepcopy(given))
        if len(seen) > len(replies):
            raise RuntimeError("the model is asked once more than it should be")
        return SimpleNamespace(text=replies[len(seen) - 1], prompt_tokens=9, completion_tokens=9, tool_calls=())

    before = copy.deepcopy(messages)
    try:
        out = plan_then_execute(llm, {name: space[name] for name in names}, messages)
    except ValueError as error:
        out = {"error": str(error)}
    return {"out": out, "ran": space["log"], "seen": seen[1:], "asked": len(seen), "kept": messages == before}


class _Missing(LookupError):
    pass


def _result(number, values):
    """The result of an earlier step, by its number as a text."""
    if int(number) not in values:
        raise _Missing(f"no result ${number}")
    return values[int(number)]


def _filled(value, values, amid=True, deep=True, kind=lambda x: x, pattern=r"\$(\d+)", put=told):
    if isinstance(value, str):
        if found := re.fullmatch(pattern, value):
            return kind(_result(found[1], values))
        return re.sub(pattern, lambda found: put(_result(found[1], values)), value) if amid else value
    if deep and isinstance(value, list):
        return [_filled(item, values, amid, deep, kind, pattern, put) for item in value]
    if deep and isinstance(value, dict):
        return {key: _filled(item, values, amid, deep, kind, pattern, put) for key, item in value.items()}
    return value


def _plan(text):
    """The list of steps that a text holds."""
    try:
        steps, _ = json.JSONDecoder().raw_decode(text[text.index("[") :])
    except ValueError:
        raise ValueError("no plan") from None
    if text.lstrip().startswith("{") or not all(_is_step(step) for step in steps):
        raise ValueError("no plan")
    return steps


def _is_step(step):
    return isinstance(step, dict) and isinstance(step.get("name"), str) and isinstance(step.get("arguments"), dict)


def planner(
    plan=_plan,
    fill=_filled,
    starts=1,
    catch=Exception,
    stops=False,
    keeps_failures=False,
    unknown=lambda name: f"error: unknown tool: {name}",
    failed=failed,
    missing=lambda error: f"error: {error.args[0]}",
    tell=told,
    write=lambda texts: "\n".join(f"${i} = {text}" for i, text in enumerate(texts, 1)),
    second=lambda messages, text, told: [
        *messages,
        {"role": "assistant", "content": text},
        {"role": "user", "content": told},
    ],  # fmt: skip
    asks=True,
    ahead=False,
):
    """A planner in parts: how the plan is read, how results are filled in, told, and what becomes of failures."""

    def plan_then_execute(llm, tools, messages):
        text = llm(messages).text
        steps, values, results = plan(text), {}, []
        for number, step in enumerate(steps, starts):
            try:
                arguments = fill(step["arguments"], values)
                if step["name"] not in tools:
                    results.append(unknown(step["name"]))
                else:
                    value = tools[step["name"]](**arguments)
                    values[number] = value
                    results.append(tell(value))
            except _Missing as error:
                results.append(missing(error))
            except catch as error:
                results.append(failed(error))
            if keeps_failures and number not in values:
                values[number] = results[-1]
            if stops and number not in values:
                break
        answer = llm(second(messages, text, write(results))).text if asks else results[-1]
        return {"answer": answer, "results": results}

    return plan_then_execute


@exercise.oracle
def by_the_rules(replies, names, messages, source):
    """Plain steps, as the docstring has them: nobody else's has these rules."""
    space, seen = {"__name__": "tools"}, []
    exec(compiled(source), space)

    def llm(given):
        seen.append(copy.deepcopy(given))
        return SimpleNamespace(text=replies[len(seen) - 1])

    try:
        out = planner()(llm, {name: space[name] for name in names}, messages)
    except ValueError as error:
        out = {"error": str(error)}
    return {"out": out, "ran": space["log"], "seen": seen[1:], "asked": len(seen), "kept": True}


exercise.agrees(agrees)


def _gave(out):
    return isinstance(out["out"], dict)


@exercise.law("The model is asked twice, and once where it gives no plan", essential=True)
def asked_twice(out, one, call):
    wanted = by_the_rules(*one.args)["asked"]
    return _gave(out) and (out["asked"] == wanted or f"the model was asked {out['asked']} times, not {wanted}")


@exercise.law("No tool runs of a plan that isn't one, nor with a result that isn't there")
def runs_as_planned(out, one, call):
    wanted = by_the_rules(*one.args)["ran"]
    return _gave(out) and (out["ran"] == wanted or f"{len(out['ran'])} runs of tools, where {len(wanted)} should be")


@exercise.law('What is no plan ends in ValueError("no plan")')
def refuses(out, one, call):
    wanted = by_the_rules(*one.args)["out"]
    return None if "error" not in wanted else out["out"] == wanted


@exercise.law("The second time the model gets the messages, its own text, and lines $1 = TEXT")
def is_told_the_results(out, one, call):
    if "error" in by_the_rules(*one.args)["out"]:
        return None
    results = out["out"].get("results") if _gave(out) else None
    if not out["seen"] or not isinstance(results, list):
        return False
    lines = "\n".join(f"${i} = {text}" for i, text in enumerate(results, 1))
    more = [{"role": "assistant", "content": one.args[0][0]}, {"role": "user", "content": lines}]
    return agrees([*one.args[2], *more], out["seen"][0], one)


@exercise.law("The messages that were given stay as they are")
def leaves_messages(out, one, call):
    return _gave(out) and out["kept"] is True


def _replaced(value, values):
    """str.replace, one number after the other."""
    if isinstance(value, str):
        if re.fullmatch(r"\$\d+", value):
            return _result(value[1:], values)
        for number in sorted(values):
            value = value.replace(f"${number}", told(values[number]))
        if found := re.search(r"\$(\d+)", value):
            raise _Missing(f"no result {found[0]}")
        return value
    if isinstance(value, list):
        return [_replaced(item, values) for item in value]
    return {key: _replaced(item, values) for key, item in value.items()} if isinstance(value, dict) else value


exercise.mistake("$1 is replaced in $12, too", hint="A number ends where its digits end: re.sub(r'\\$(\\d+)', …).")(
    planner(fill=_replaced)
)
exercise.mistake(
    "a result that is handed on becomes a text", hint='"$1" alone becomes the result itself: a number stays one.'
)(planner(fill=lambda value, values: _filled(value, values, kind=told)))
exercise.mistake("only a value that is $1 alone is filled in", hint="Amid a text, its text is put in.")(
    planner(fill=lambda value, values: _filled(value, values, amid=False))
)


def _shallow(value, values):
    return {key: _filled(item, values, deep=False) for key, item in value.items()}


exercise.mistake("lists and objects aren't looked into", hint="Arguments may be nested: filled calls itself.")(
    planner(fill=_shallow)
)
exercise.mistake("nothing is filled in", hint="$1 stands for the result of the first step.")(
    planner(fill=lambda value, values: value)
)
exercise.mistake("steps count from 0", hint="$1 is the first step.")(planner(starts=0))
exercise.mistake("one failed step ends the plan", hint="Steps that don't need it go on.")(planner(stops=True))
exercise.mistake(
    "the message of a failure is handed on as a result", hint="What needs it can't run: error: no result $1."
)(planner(keeps_failures=True))


def _none_instead(value, values):
    return _filled(value, _Lenient(values))


class _Lenient(dict):
    def __contains__(self, number):
        return True

    def __missing__(self, number):
        return None


def _last_missing(value, values):
    numbers = re.findall(r"\$(\d+)", json.dumps(value))
    for number in numbers[::-1]:
        _result(number, values)
    return _filled(value, values)


exercise.mistake("of several results that aren't there the last is told", hint="The first $ that has no result.")(
    planner(fill=_last_missing)
)
exercise.mistake("what a result says is filled in once more", hint="A result is data: in one pass, and not again.")(
    planner(fill=lambda value, values: _filled(_filled(value, values), values))
)
exercise.mistake(
    'a result of None, 0 or "" counts as none', hint="Ask whether the step has a result, not if it is true."
)(planner(fill=lambda value, values: _filled(value, {number: x for number, x in values.items() if x})))
exercise.mistake("a result that isn't there is None", hint="The step can't run: error: no result $3.")(
    planner(fill=_none_instead)
)


class _Never(Exception):
    pass


exercise.mistake(
    "a tool's error ends everything", hint="except Exception: its text tells of it, and the plan goes on."
)(planner(catch=_Never))
exercise.mistake("an unknown tool is a KeyError", hint="error: unknown tool: NAME")(
    planner(unknown=lambda name: failed(KeyError(name)))
)
exercise.mistake("a missing result is told as an exception", hint="error: no result $3, and no more.")(
    planner(missing=lambda error: f"error: LookupError: {error.args[0]}")
)
exercise.mistake("letters beyond ASCII become numbers", hint="json.dumps(…, ensure_ascii=False): ü is one letter.")(
    planner(tell=ascii_only, fill=lambda value, values: _filled(value, values, put=ascii_only))
)
exercise.mistake("amid a text a result stands in Python's writing", hint="As told: None is null, a list is JSON.")(
    planner(fill=lambda value, values: _filled(value, values, put=str))
)
exercise.mistake("results are told in Python's writing", hint="A str as it is, anything else as JSON.")(
    planner(tell=str)
)


def _loose(text):
    try:
        steps, _ = json.JSONDecoder().raw_decode(text[text.index("[") :])
    except ValueError:
        raise ValueError("no plan") from None
    return [step if _is_step(step) else {"name": str(step), "arguments": {}} for step in steps]


exercise.mistake("steps of another form are let through", hint="Check the whole plan before anything runs.")(
    planner(plan=_loose)
)


def _strict(text):
    if not text.startswith("["):
        raise ValueError("no plan")
    return _plan(text)


def _anywhere(text):
    return _plan(text.lstrip().removeprefix("{"))


exercise.mistake("a list within an object is a plan", hint="A text that begins with { has another form: no plan.")(
    planner(plan=_anywhere)
)
exercise.mistake("text before the plan isn't allowed", hint="The list begins at the first [.")(planner(plan=_strict))


def _whole(text):
    try:
        json.loads(text[text.index("[") :])
    except ValueError:
        raise ValueError("no plan") from None
    return _plan(text)


def _to_the_last(text):
    return _whole(text[: text.rindex("]") + 1] if "]" in text else text)


exercise.mistake("text behind the plan isn't allowed", hint="raw_decode reads the list, and ignores what follows.")(
    planner(plan=_whole)
)
exercise.mistake(
    "the plan reaches to the last bracket", hint="Text behind it may hold brackets. raw_decode knows its end."
)(planner(plan=_to_the_last))
exercise.mistake("the answer is stripped", hint="The answer is the model's text, as it is.")(
    lambda llm, tools, messages: _stripped(planner()(llm, tools, messages))
)


def _stripped(out):
    return out | {"answer": out["answer"].strip()}


def _one(text):
    try:
        return _plan(text)
    except ValueError:
        return []


exercise.mistake("what isn't a plan is an empty one", hint='ValueError("no plan"): nothing should seem planned.')(
    planner(plan=_one)
)
exercise.mistake("the last result is the answer", hint="The model is asked a second time, with the results.")(
    lambda llm, tools, messages: _unasked(llm, tools, messages)
)


def _unasked(llm, tools, messages):
    given = []

    def once(asked):
        given.append(asked)
        return llm(asked) if len(given) == 1 else SimpleNamespace(text="")

    out = planner()(once, tools, messages)
    return out | {"answer": out["results"][-1] if out["results"] else ""}


exercise.mistake(
    "the model doesn't see its plan again", hint="The plan is a message of the assistant, before the results."
)(planner(second=lambda messages, text, told: [*messages, {"role": "user", "content": told}]))
exercise.mistake("the results aren't numbered", hint="$1 = … on a line of its own, as the plan calls them.")(
    planner(write=lambda texts: "\n".join(texts))
)


def _grown(messages, text, told):
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": told}]
    return messages


exercise.mistake("the caller's list grows", hint="[*messages, …]: a new one.")(planner(second=_grown))

exercise.alternative(planner())


@exercise.alternative
def with_classes(llm, tools, messages):
    class Failed(Exception):
        pass

    done = []

    def value_of(number):
        if not 1 <= number <= len(done) or done[number - 1][0] is False:
            raise Failed(f"error: no result ${number}")
        return done[number - 1][1]

    def amid(text):
        parts = re.split(r"\$(\d+)", text)
        return "".join(told(value_of(int(part))) if i % 2 else part for i, part in enumerate(parts))

    def filled(x):
        if type(x) is str:
            return value_of(int(x[1:])) if x[:1] == "$" and x[1:].isdecimal() else amid(x)
        if type(x) is list:
            return list(map(filled, x))
        return {k: filled(v) for k, v in x.items()} if type(x) is dict else x

    text = llm(list(messages)).text
    start = text.find("[")
    try:
        steps = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except json.JSONDecodeError:
        steps = None
    if steps is None or not all(_is_step(one) for one in steps) or text[:start].strip().startswith("{"):
        raise ValueError("no plan")
    for one in steps:
        try:
            arguments = filled(one["arguments"])
            if one["name"] not in tools:
                raise Failed(f"error: unknown tool: {one['name']}")
            done.append((True, tools[one["name"]](**arguments)))
        except Failed as error:
            done.append((False, str(error)))
        except Exception as error:
            done.append((False, f"error: {type(error).__name__}: {error}"))
    results = [told(value) for _, value in done]
    lines = [f"${i + 1} = {result}" for i, result in enumerate(results)]
    more = [{"role": "assistant", "content": text}, {"role": "user", "content": "\n".join(lines)}]
    return {"results": results, "answer": llm(messages + more).text}

"""`run_agent(llm, tools, messages, max_steps=6, max_tokens=4000)`: Think, act, observe, until there is an answer."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import torch

from autograde.exercise import Draft, case
from autograde.exercises.applications.agents.is_looping import by_steps as looping
from autograde.exercises.applications.agents.shared import (
    OFFERED,
    TOOLS,
    _before,
    agrees,
    ascii_only,
    carried_out,
    compiled,
    failed,
    parse,
    told,
)
from autograde.exercises.applications.prompts_and_tools.shared import pick, words

exercise = Draft(
    "run_agent",
    points=5,
    no_gradient="texts are no numbers",
    hints=[
        "One turn of the loop: ask the model, keep what it wrote, read it, and answer it with an observation. What can "
        "end the loop, and when is that asked?",
        "Before each call of the model: are steps and tokens left? After reading: is it an answer? After noting the "
        "call: is_looping(calls)? Only then does a tool run.",
        "try parse_action(text), except ValueError: the observation is its message. try `tools[name](**arguments)`, "
        "except Exception. Keep text = the part before a line Observation:, without white space at its end.",
    ],
)


def wrote(name, thought="", **arguments):
    return f"Thought: {thought}\nAction: {name}\nAction Input: {json.dumps(arguments, ensure_ascii=False)}"


@exercise.cases
def runs(g):
    n = 2 * int(torch.randint(2, 40, (), generator=g)) + 1
    some, more = words(g, 1, 3), words(g, 4, 5)
    system = {"role": "system", "content": f"Think, act, observe. {more}"}
    start = [system, {"role": "user", "content": f"What is {n} and {some}?"}]
    earlier = [start[0], {"role": "user", "content": more}, {"role": "assistant", "content": some}, start[1]]
    final = f"Thought: done\nFinal Answer: {some}"
    add, shout, halve = wrote("add", more, a=n, b=2.5), wrote("shout", text=some), wrote("halve", n=n)

    def one(script, label, messages=start, names=OFFERED, sizes=None, **settings):
        sizes = sizes or [[30 + 7 * i + n, 5 + i] for i in range(len(script))]
        replies = [[text, *size] for text, size in zip(script, sizes, strict=True)]
        chosen = [names[i] for i in torch.randperm(len(names), generator=g).tolist()]
        return case(replies, chosen, copy.deepcopy(messages), TOOLS, label=label, **settings)

    yield one([add, shout, final], "two calls and an answer")
    yield one([final], "an answer at once", messages=earlier)
    yield one(
        [f"{add}\nObservation: {n}\nThought: good\nFinal Answer: {more}", f"{shout} \n\n", final],
        "the model invents the observation",
    )
    amid = f"Thought: the Observation: {n} was it\nAction: add\nAction Input: " + json.dumps({"a": n, "b": 1})
    yield one([amid, f"Final Answer: no Observation: {more}"], "the marker amid a line is no marker")
    yield one([some, add, final], "what can't be read is a step as well", max_steps=2)
    yield one([f"\n {halve}", wrote("find", key=some), wrote("ring", number=n), final], "tools fail")
    yield one([wrote("secret"), wrote("add", a=n, c=1), final], "an unknown tool, and an unknown argument")
    yield one([f"{some}, {more}.", f"Action: add\nAction Input: {n}", "Action: add", final], "what can't be read")
    yield one([wrote("find", key="ä"), wrote("nothing"), wrote("empty"), wrote("day", year=1990 + n % 30), final],
              "results that are no texts")  # fmt: skip
    yield one([add, add, add, shout, final], "the same call three times: the third one doesn't run")
    yield one([add, shout, add, shout, add, shout, final], "two calls in turn", max_steps=9)
    yield one([halve, halve, final], "the same call twice is allowed")
    yield one([wrote("secret"), wrote("secret"), wrote("secret"), final], "an unknown tool three times")
    yield one([some, some, some, final], "the same prose three times is no call")
    yield one([add, shout, halve, final], "no step left", max_steps=3)
    yield one([add, shout, final], "the answer in the last step", max_steps=3)
    yield one([final], "no step at all", max_steps=0)
    yield one([*(f"{more} {i}." for i in range(6)), final], "six steps, and none is left")
    yield one([add, shout, final], "4,000 tokens are spent", sizes=[[1990, 10], [1900, 100], [5, 5]])
    yield one([add, shout, final], "3,999 tokens are spent", sizes=[[1990, 10], [1900, 99], [5, 5]])
    sizes = [[100, 10], [200, 20], [300, 30]]
    yield one([add, shout, final], "the tokens are spent", sizes=sizes, max_tokens=330)
    yield one([add, shout, final], "a token is left", sizes=sizes, max_tokens=331)
    yield one([add, shout, final], "only the first answer fits", sizes=sizes, max_tokens=110)
    yield one([add, shout, final], "no step and no token", sizes=sizes, max_steps=1, max_tokens=110)
    yield one([wrote("keep", items=[n, {"a": [some]}]), wrote("keep", items=[n]), final], "lists and objects")
    yield one([final], "no token at all", max_tokens=0)
    yield one([add, final], "one tool", names=("add",))
    yield one([shout, "Final Answer:"], pick(g, ["an empty answer", "an answer without words"]))


@exercise.probe
def played(run_agent, replies, names, messages, source, **settings):
    """What comes back from a model that follows a script, which tools ran, and what the model was given."""
    import copy
    from types import SimpleNamespace

    space, seen = {"__name__": "tools"}, []
    exec(source, space)

    def llm(given):
        seen.append(copy.deepcopy(given))
        if len(seen) > len(replies):
            raise RuntimeError("the model is asked once more than it should be")
        text, read, written = replies[len(seen) - 1]
        return SimpleNamespace(text=text, prompt_tokens=read, completion_tokens=written, tool_calls=())

    before = copy.deepcopy(messages)
    out = run_agent(llm, {name: space[name] for name in names}, messages, **settings)
    return {"out": out, "ran": space["log"], "seen": [len(given) for given in seen], "last": seen[-1] if seen else [],
            "kept": messages == before}  # fmt: skip


def _kept(text):
    return _before(text).rstrip()


def _turn(text):
    return {"role": "assistant", "content": text}


def _observed(text):
    return {"role": "user", "content": f"Observation: {text}"}


class _Never(Exception):
    pass


def agent(
    read=parse,
    loops=looping,
    keep=_kept,
    run=carried_out,
    observed=_observed,
    spent=lambda reply: reply.prompt_tokens + reply.completion_tokens,
    over=lambda tokens, most: tokens >= most,
    tokens_first=False,
    steps=lambda most: most,
    copied=list,
    mend=lambda error: f"error: {error}",
    catch=ValueError,
    noted=lambda call, tools: True,
    late=False,
    observes_errors=True,
    remember=True,
    at_end=lambda text: None,
    adds=True,
    asks_late=False,
    unread_costs=1,
):
    """An agent in parts: how it reads, keeps, runs, observes, counts, and when it stops."""

    def run_agent(llm, tools, messages, max_steps=6, max_tokens=4000):
        messages, calls, tokens, answer, stopped, text = copied(messages), [], 0, None, "steps", ""
        done = 0
        while done < steps(max_steps):
            if not asks_late and over(tokens, max_tokens):
                stopped = "tokens"
                break
            reply = llm(messages)
            tokens = adds * tokens + spent(reply)
            if asks_late and over(tokens, max_tokens):
                stopped = "tokens"
                break
            text = keep(reply.text)
            messages.append(_turn(text))
            try:
                action = read(reply.text)
            except catch as error:
                messages.append(observed(mend(error)))
                done += unread_costs
                continue
            done += 1
            if "answer" in action:
                answer, stopped = action["answer"], "answer"
                break
            call = {"name": action["name"], "arguments": action["arguments"]}
            if noted(call, tools):
                calls.append(call)
            if not late and loops(calls):
                stopped = "loop"
                break
            messages.append(observed(run(call["name"], call["arguments"], tools)))
            if late and loops(calls):
                stopped = "loop"
                break
            if not remember:
                messages = [*messages[:2], *messages[-2:]]
        else:
            if tokens_first and over(tokens, max_tokens):
                stopped = "tokens"
        if answer is None:
            answer = at_end(text)
        return {"answer": answer, "stopped": stopped, "messages": messages, "calls": calls, "tokens": tokens}

    return run_agent


@exercise.oracle
def by_the_rules(replies, names, messages, source, **settings):
    """A plain loop, as the docstring has it: nobody else's has these rules."""
    space, seen = {"__name__": "tools"}, []
    exec(compiled(source), space)

    def llm(given):
        seen.append(copy.deepcopy(given))
        text, read, written = replies[len(seen) - 1]
        return SimpleNamespace(text=text, prompt_tokens=read, completion_tokens=written)

    out = agent()(llm, {name: space[name] for name in names}, messages, **settings)
    return {"out": out, "ran": space["log"], "seen": [len(given) for given in seen], "last": seen[-1] if seen else [],
            "kept": True}  # fmt: skip


exercise.agrees(agrees)


def _wanted(one):
    return by_the_rules(*one.args, **one.kwargs)


def _gave(out):
    return isinstance(out["out"], dict) and isinstance(out["out"].get("messages"), list)


@exercise.law("A tool runs as often as it is asked for, and none once the loop is seen")
def runs_as_asked(out, one, call):
    wanted = _wanted(one)["ran"]
    return _gave(out) and (out["ran"] == wanted or f"{len(out['ran'])} runs of tools, where {len(wanted)} should be")


@exercise.law("The model is asked no more often than steps and tokens allow")
def within_budget(out, one, call):
    wanted = len(_wanted(one)["seen"])
    return _gave(out) and (len(out["seen"]) == wanted or f"the model was asked {len(out['seen'])} times, not {wanted}")


@exercise.law("The messages that were given stay as they are")
def leaves_messages(out, one, call):
    return _gave(out) and out["kept"] is True


@exercise.law("What went wrong is told to the model")
def errors_are_told(out, one, call):
    wanted = [m["content"] for m in _wanted(one)["out"]["messages"] if m["content"].startswith("Observation: error")]
    if not _gave(out):
        return False
    told_so = [m["content"] for m in out["out"]["messages"] if m["content"].startswith("Observation: error")]
    return None if not wanted else told_so == wanted


exercise.mistake(
    "what the model invented stays in the conversation",
    hint="It would read its own invention as a result. Keep the part before Observation:.",
)(agent(keep=lambda text: text.rstrip()))
exercise.mistake(
    "a text is cut at Observation: amid a line", hint="Only a line that begins with it was invented for a result."
)(agent(keep=lambda text: text.split("Observation:")[0].rstrip()))
exercise.mistake("white space at the beginning goes, too", hint="At the end alone: rstrip.")(
    agent(keep=lambda text: _kept(text).strip())
)
exercise.mistake("white space at the end is kept", hint="Without white space at its end, as the docstring says.")(
    agent(keep=lambda text: _before(text))
)


def _without_default(result):
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _raised(name, arguments, tools):
    if name not in tools:
        return f"error: unknown tool: {name}"
    return told(tools[name](**arguments))


exercise.mistake("a tool's error ends the run", hint="except Exception: the model can mend what it is told.")(
    agent(run=_raised)
)
exercise.mistake("only some kinds of errors are caught", hint="except Exception: tools have errors of their own.")(
    agent(run=lambda *call: carried_out(*call, catch=(ValueError, KeyError, TypeError)))
)
exercise.mistake("what can't be read ends the run", hint="except ValueError: the message is the observation.")(
    agent(catch=_Never)
)


def _keyed(name, arguments, tools):
    try:
        return told(tools[name](**arguments))
    except Exception as error:
        return failed(error)


exercise.mistake("an unknown tool is a KeyError", hint="error: unknown tool: NAME tells the model more than KeyError.")(
    agent(run=_keyed)
)


def _without_type(name, arguments, tools):
    if name not in tools:
        return f"error: unknown tool: {name}"
    try:
        return told(tools[name](**arguments))
    except Exception as error:
        return f"error: {error}"


exercise.mistake("the error's type isn't told", hint="KeyError: 'x' says more than 'x'.")(agent(run=_without_type))


def _plain(name, arguments, tools):
    if name not in tools:
        return f"error: unknown tool: {name}"
    try:
        return str(tools[name](**arguments))
    except Exception as error:
        return failed(error)


exercise.mistake("results are told in Python's writing", hint="json.dumps, a str as it is.")(agent(run=_plain))
exercise.mistake("texts are written as JSON, too", hint="A str as it is: without quotes around it.")(
    agent(run=lambda *call: carried_out(*call, told=lambda result: told([result])[1:-1]))
)
exercise.mistake("what JSON doesn't know is an error", hint="default=str: a date is told as it prints.")(
    agent(run=lambda *call: carried_out(*call, told=_without_default))
)
exercise.mistake("letters beyond ASCII become numbers", hint="json.dumps(…, ensure_ascii=False): ü is one letter.")(
    agent(run=lambda *call: carried_out(*call, told=ascii_only))
)
exercise.mistake("an empty result is told as none", hint="An empty text is a result. Don't ask `if result`.")(
    agent(run=lambda name, arguments, tools: carried_out(name, arguments, tools) or "error: no result")
)
exercise.mistake("the loop is seen after the tool has run", hint="A tool may cost money: look before it runs.")(
    agent(late=True)
)
exercise.mistake("loops aren't looked for", hint="is_looping(calls) after each call is noted.")(
    agent(loops=lambda calls: False)
)
exercise.mistake("the same call twice is a loop", hint="is_looping with its own defaults: three times.")(
    agent(loops=lambda calls: looping(calls, 2))
)
exercise.mistake(
    "calls of unknown tools aren't noted", hint="Every call that could be read is noted, also one that can't run."
)(agent(noted=lambda call, tools: call["name"] in tools))
exercise.mistake("one step too many", hint="The model is asked at most max_steps times.")(
    agent(steps=lambda most: most + 1)
)
exercise.mistake("what can't be read costs no step", hint="Each time that the model is asked is a step.")(
    agent(unread_costs=0)
)
exercise.mistake("one step too few", hint="The model is asked at most max_steps times.")(
    agent(steps=lambda most: most - 1)
)
exercise.mistake(
    "only the tokens that are written count", hint="Reading is paid, too: prompt_tokens + completion_tokens."
)(agent(spent=lambda reply: reply.completion_tokens))
exercise.mistake("only the tokens that are read count", hint="prompt_tokens + completion_tokens.")(
    agent(spent=lambda reply: reply.prompt_tokens)
)
exercise.mistake("tokens may be overdrawn by one more call", hint="The model isn't asked once tokens >= max_tokens.")(
    agent(over=lambda tokens, most: tokens > most)
)
exercise.mistake("only the last reply's tokens count", hint="tokens += …: all replies together.")(agent(adds=False))
exercise.mistake(
    "tokens are asked about after the model has answered", hint="Before each call: what is spent can't be spent less."
)(agent(asks_late=True))
exercise.mistake("tokens aren't limited", hint="Before each call: are there any left?")(
    agent(over=lambda tokens, most: False)
)
exercise.mistake(
    "where no step is left, the tokens are named", hint="Steps are asked first: max_steps is reached, so it's steps."
)(agent(tokens_first=True))
exercise.mistake("the caller's list grows", hint="messages = list(messages): a new one.")(agent(copied=lambda m: m))
exercise.mistake(
    "the observation has the role tool", hint="This text format knows no such role: user, and Observation:."
)(agent(observed=lambda text: {"role": "tool", "content": f"Observation: {text}"}))
exercise.mistake("the observation isn't marked", hint='"Observation: " and the text.')(
    agent(observed=lambda text: {"role": "user", "content": text})
)
exercise.mistake(
    "the conversation is forgotten after each step", hint="The model sees all that was thought and observed."
)(agent(remember=False))
exercise.mistake(
    "without an answer the last text is one", hint="answer is None: whoever calls must see that it failed."
)(agent(at_end=lambda text: text))
exercise.mistake("what can't be read is told without error:", hint='"error: " and the message.')(
    agent(mend=lambda error: str(error))
)

exercise.alternative(agent())


@exercise.alternative
def with_while(llm, tools, messages, max_steps=6, max_tokens=4000):
    state = {"answer": None, "stopped": "", "messages": [dict(m) for m in messages], "calls": [], "tokens": 0}
    left = max_steps

    def observe(text):
        state["messages"] += [{"role": "user", "content": "Observation: " + text}]

    while not state["stopped"]:
        if left <= 0:
            state["stopped"] = "steps"
        elif state["tokens"] >= max_tokens:
            state["stopped"] = "tokens"
        else:
            left -= 1
            reply = llm([*state["messages"]])
            state["tokens"] += reply.completion_tokens + reply.prompt_tokens
            lines = reply.text.split("\n")
            cut = next((i for i, line in enumerate(lines) if line.startswith("Observation:")), len(lines))
            state["messages"] += [{"role": "assistant", "content": "\n".join(lines[:cut]).rstrip()}]
            try:
                action = parse(reply.text)
            except ValueError as error:
                observe(f"error: {error}")
                continue
            action.pop("thought")
            if "answer" in action:
                state |= {"answer": action["answer"], "stopped": "answer"}
                continue
            state["calls"] += [action]
            if looping(state["calls"], 3, 3):
                state["stopped"] = "loop"
                continue
            if action["name"] not in tools:
                observe("error: unknown tool: " + action["name"])
                continue
            try:
                observe(told(tools[action["name"]](**action["arguments"])))
            except Exception as error:
                observe(f"error: {type(error).__name__}: {error}")
    return state

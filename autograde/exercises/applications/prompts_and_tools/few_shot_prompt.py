"""`few_shot_prompt(instruction, examples, query, template='Input: {input}\nOutput: {output}', separator='\n\n')`

A prompt made of an instruction, examples and an unfinished example.
"""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.applications.prompts_and_tools.shared import pick, words

exercise = Draft(
    "few_shot_prompt",
    points=2,
    no_gradient="texts are no numbers",
    hints=[
        "The prompt is a list of blocks: the instruction, one block an example, and an unfinished one.",
        "template.format(input=…, output=…) fills an example's block; the query's comes from the template up to "
        "{output}.",
        "template.partition('{output}')[0].format(input=query); then separator.join(blocks).rstrip().",
    ],
)


def _examples(g, n):
    return [(words(g), pick(g, ["yes", "no", "both"])) for _ in range(n)]


@exercise.cases
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
    held = f"{words(g)} {{input}} {{output}}"
    yield case(held, _examples(g, 2), words(g), label="braces in the instruction")
    odd = "C:\\new \\1 \\g<0> 5 % $$ ${x} %s\r\ne\u0301"
    yield case(odd, [(odd, odd)], odd, "{input}: 100 %\n{output}", label="backslashes and other signs")
    shots = [*_examples(g, 2), (words(g), "")]
    yield case(words(g), shots, shots[1][0], label="an example of the query itself, and one with an empty output")
    yield case(words(g), _examples(g, 1), "", label="an empty query")
    yield case(words(g), _examples(g, 2), "", "{input}\n{output}", label="nothing behind the last separator")
    yield case(" ", _examples(g, 1), words(g), label="an instruction that is a space")
    yield case(words(g), _examples(g, 2), f"{words(g)}  ", "{input}{output}", label="nothing before the answer")
    yield case(words(g), _examples(g, 12), words(g), "{input}\t{output}", "", label="twelve examples, no separator")
    spaced = [(f" {words(g)} ", f"{words(g)}\n")]
    yield case(f" {words(g)}\n", spaced, f" {words(g)} ", label="white space around the texts")
    yield case(words(g), _examples(g, 1), f"{words(g)} \n", "{input}\n{output}", label="white space before the answer")
    yield case(
        words(g),
        [("zebra", "yes"), ("apple", "no"), ("mango", "yes")],
        words(g),
        "{input}: {output}",
        " | ",
        label="examples that aren't in alphabetical order",
    )


PLAIN = "Input: {input}\nOutput: {output}"


@exercise.oracle
def formatted(instruction, examples, query, template=PLAIN, separator="\n\n"):
    """Blocks made by Python's own str.format."""
    blocks = [instruction] if instruction else []
    blocks += [template.format(input=given, output=wanted) for given, wanted in examples]
    blocks.append(template[: template.index("{output}")].format(input=query))
    return separator.join(blocks).rstrip()


def _template(one):
    return one.args[3] if len(one.args) > 3 else one.kwargs.get("template", PLAIN)


@exercise.law("The prompt ends where the answer begins, without white space")
def ends_at_the_answer(out, one, call):
    """Nothing between the prompt's last word and the token to come."""
    cue = _template(one).split("{output}")[0].rpartition("{input}")[2].rstrip()
    return out == out.rstrip() and out.endswith(cue)


@exercise.law("Every example stands in it, in the order given, letter by letter")
def keeps_every_example(out, one, call):
    """Each example's text and answer, in the order given."""
    place = 0
    for given, wanted in one.args[1]:
        for part in (given, wanted):
            place = out.find(part, place) + len(part)
            if place < len(part):
                return f"{part!r} is missing, or doesn't stand where its example should"
    return True


@exercise.law("The query comes last, and changes nothing before it")
def examples_go_before_the_query(out, one, call):
    """Another query changes nothing before it."""
    instruction, examples, query, *rest = one.args
    other = call(instruction, examples, "x", *rest, **one.kwargs)
    head = _template(one).split("{input}")[0]
    before = other[: other.rindex(head + "x")]
    return out.startswith(before if query.strip() else before.rstrip()) and f"{head}{query}".rstrip() in out


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


exercise.mistake(
    "white space at the end is kept",
    hint="Tokens carry their space in front: ' yes' is one token. A space left behind makes it unlikely.",
)(_few_shot(end=lambda text: text))

exercise.mistake("a space is left at the end", hint="The answer's token brings its own space.")(
    _few_shot(end=lambda text: text.rstrip() + " ")
)

exercise.mistake("the texts are stripped", hint="Only the end of the whole prompt is.")(
    _few_shot(end=str.strip, fill=lambda t, x, y: _filled(t, x.strip(), y.strip()))
)

exercise.mistake("the examples come in reverse order", hint="Order matters to the model, so the caller decides.")(
    _few_shot(shots=lambda examples: examples[::-1])
)

@exercise.mistake("an example of the query itself is left out", hint="Each example: the caller has chosen them.")
def few_shot_others(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, [shot for shot in examples if shot[0] != query], query, template, separator)


@exercise.mistake("the instruction is formatted like a template", hint="Its braces are its own: format the template.")
def few_shot_formats_instruction(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction.format(input=query, output=""), examples, query, template, separator)


exercise.mistake("the examples are sorted", hint="Order matters, so the caller decides.")(
    _few_shot(shots=lambda examples: sorted(examples))
)

exercise.mistake("an example that comes twice is written once", hint="The caller's list is the caller's choice.")(
    _few_shot(shots=lambda examples: list(dict.fromkeys(map(tuple, examples))))
)

exercise.mistake("input and output are swapped", hint="An example is (input, output).")(
    _few_shot(fill=lambda template, given, wanted: _filled(template, wanted, given))
)

exercise.mistake(
    "the query's block goes on after the answer's place",
    hint="Cut the template at {output}: what follows it comes after the answer.",
)(_few_shot(ask=lambda template, query: _filled(template, query, "")))

exercise.mistake(
    "the query's block still shows the place {output}", hint="The prompt ends where the answer is to be written."
)(_few_shot(ask=lambda template, query: _filled(template, query, "{output}")))

exercise.mistake(
    "the query's block lacks the words before the answer",
    hint="'Output:' belongs to the prompt: it is what the model completes.",
)(_few_shot(ask=lambda template, query: template.partition("{input}")[0] + query))

exercise.mistake(
    "the query stands there without the template", hint="The model has to see the same form once more, unfinished."
)(_few_shot(ask=lambda template, query: query))


def _replaced(template, given, wanted):
    """The answer's place is looked for in the text that was put in before it."""
    return template.replace("{input}", given).replace("{output}", wanted)


exercise.mistake(
    "places are also looked for in the texts themselves",
    hint="A text may hold the letters {output}. Fill a template in one step: template.format(...).",
)(_few_shot(fill=_replaced))


@exercise.mistake(
    "the whole prompt is formatted once it is put together",
    hint="Texts may hold braces: format the template, never a text.",
)
def few_shot_formatted_late(instruction, examples, query, template=PLAIN, separator="\n\n"):
    """The examples are put together first, and the whole is formatted."""
    blocks = [template.format(input=given, output=wanted) for given, wanted in examples]
    whole = separator.join([instruction] * bool(instruction) + [*blocks, template.partition("{output}")[0]])
    return whole.format(input=query).rstrip()


exercise.mistake("the query stands before the examples", hint="The model goes on at the end.")(
    _few_shot(join=lambda blocks, asked, by: by.join([asked.rstrip(), *blocks]))
)

exercise.mistake("an empty instruction makes a block", hint="No instruction, no block and no separator.")(
    _few_shot(first=lambda text: [text])
)

exercise.mistake("the instruction is forgotten", hint="It is the first block.")(_few_shot(first=lambda text: []))

exercise.mistake("the blocks aren't separated", hint="separator.join(blocks).")(
    _few_shot(join=lambda blocks, asked, by: "".join([*blocks, asked]))
)

few_shot = _few_shot()


@exercise.mistake("blocks are always separated by a blank line", hint="Use the separator that you are given.")
def few_shot_blank_lines(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, examples, query, template)


@exercise.mistake("the default template is always used", hint="Use the template that you are given.")
def few_shot_own_template(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, examples, query, PLAIN, separator)


exercise.mistake("only spaces are taken away at the end", hint="White space of all kinds: rstrip().")(
    _few_shot(end=lambda text: text.rstrip(" "))
)

exercise.mistake("the last example is left out", hint="Each example, in the order given.")(
    lambda instruction, examples, query, *rest, **others: few_shot(instruction, examples[:-1], query, *rest, **others)
)


@exercise.mistake("an instruction of white space is left out", hint="Only an empty one is: '' and nothing else.")
def few_shot_strict_instruction(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction if instruction.strip() else "", examples, query, template, separator)


@exercise.mistake("only the first eight examples are written", hint="Each example, in the order given.")
def few_shot_eight(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, examples[:8], query, template, separator)


@exercise.mistake("an empty separator is taken for the default", hint="'' is a separator as well: join with it.")
def few_shot_no_empty_separator(instruction, examples, query, template=PLAIN, separator="\n\n"):
    return few_shot(instruction, examples, query, template, separator or "\n\n")


exercise.alternative(few_shot)


@exercise.alternative
def few_shot_by_loop(instruction, examples, query, template=PLAIN, separator="\n\n"):
    out = instruction + separator if instruction else ""
    for given, wanted in examples:
        out += template.format(input=given, output=wanted)
        out += separator
    return (out + template.split("{output}")[0].format(input=query)).rstrip()

"""`sequence_distillation_data(prompts, answers, eos, pad, max_length)`

A batch to train a student on what its teacher wrote.
"""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import pad_sequence

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "sequence_distillation_data",
    points=4,
    no_gradient="ids are no numbers to train",
    strides=False,
    dtypes=(),
    hints=[
        "First a plain list of (prompt, answer) pairs that may stay, in order. Then, and only then, tensors.",
        "An answer without eos was cut off; else it ends with its first eos. Remember the pairs that you have. "
        "Lengths, not ids, say where padding is: a token may have the id of pad.",
        "labels are [-100] * len(prompt) + answer; pad_sequence(rows, batch_first=True, padding_value=...) pads on the "
        "right: ids with pad, labels with -100, a row of ones with 0.",
    ],
)

EOS = 1


@exercise.cases
def written(g):
    def words(n):
        return torch.randint(3, 60, (n,), generator=g).tolist()

    def answer(n):
        return [*words(n), EOS]

    longest = pick(g, 9, 11)
    kept, twice = answer(3), words(2)
    yield case([words(2), words(4), words(1)], [[answer(3)], [answer(1)], [answer(5)]], EOS, 0, 20, label="one each")
    yield case(
        [words(3), words(2)],
        [[words(5), answer(2), answer(4)], [answer(3), words(2)]],
        EOS,
        0,
        30,
        label="several answers, some cut off",
    )
    yield case(
        [words(2), words(3), words(2)],
        [[[*answer(2), 0, 0, 0], answer(6)], [[*answer(1), 0, 0]], [[*answer(3), 0]]],
        eos=EOS,
        pad=0,
        max_length=40,
        label="padding of the generation behind the end",
    )
    yield case(
        [words(4), words(2), words(3)],
        [[[*answer(2), EOS, EOS], answer(3)], [answer(4)], [[*answer(1), EOS]]],
        EOS,
        EOS,
        25,
        label="pad is eos",
    )
    first = words(longest - 5)
    yield case(
        [first, words(2), words(3)],
        [
            [answer(4), answer(5), answer(3)],
            [answer(longest - 3), answer(longest - 2), answer(2)],
            [answer(longest + 1), answer(1)],
        ],
        EOS,
        2,
        longest,
        label="just as long as allowed, and one longer",
    )
    yield case(
        [twice, words(3), twice, words(4)],
        [[kept, answer(2), list(kept)], [list(kept), answer(1)], [answer(4), list(kept)], [answer(2)]],
        EOS,
        0,
        30,
        label="the same twice, and the same answer to another prompt",
    )
    yield case(
        [words(2), words(5), words(3)],
        [[[EOS], answer(2)], [[EOS, 0, 0]], [answer(3)]],
        EOS,
        0,
        30,
        label="empty answers",
    )
    yield case([words(2)], [[[*kept, 0, 4], [*kept, 0], answer(2)]], EOS, 0, 9, label="the same up to its end")
    yield case([[5, 6], [5]], [[[7, EOS]], [[6, 7, EOS]]], EOS, 0, 9, label="the same ids, parted elsewhere")
    yield case(
        [[7, 0, 9], [0, 4]], [[[5, 0, 6, EOS]], [[8, EOS], [0, EOS]]], EOS, 0, 12, label="the id of pad as a token"
    )
    yield case([[6, EOS, 5], [EOS, 4]], [[answer(2)], [answer(4)]], EOS, 0, 15, label="eos in the prompts")
    yield case([words(3)], [[answer(2)]], EOS, 0, 50, label="one example alone")
    late = [*answer(3), *words(2), 0, 0]  # with what stands behind its end it would be too long
    yield case([words(2), words(3)], [[late, answer(2)], [answer(1)]], EOS, 0, 7, label="too long behind the end alone")
    yield case(
        [words(pick(g, 1, 6)) for _ in range(40)],
        [[answer(pick(g, 1, 8)) if i % 3 else words(4) for i in range(4)] for _ in range(40)],
        EOS,
        0,
        13,
        label="forty prompts",
    )


def _ended(answer, eos):
    """The answer up to its first eos, or None where it was cut off."""
    return answer[: answer.index(eos) + 1] if eos in answer else None


def _pairs(prompts, answers, eos, max_length):
    pairs = []
    for prompt, some in zip(prompts, answers, strict=True):
        for answer in some:
            end = _ended(answer, eos)
            if end and len(end) > 1 and len(prompt) + len(end) <= max_length and (prompt, end) not in pairs:
                pairs.append((prompt, end))
    return pairs


@exercise.oracle
def by_pad_sequence(prompts, answers, eos, pad, max_length):
    """The rules one by one, and torch's pad_sequence."""
    pairs = _pairs(prompts, answers, eos, max_length)
    rows = {
        "input_ids": ([p + a for p, a in pairs], pad),
        "labels": ([[-100] * len(p) + a for p, a in pairs], -100),
        "attention_mask": ([[1] * len(p + a) for p, a in pairs], 0),
    }
    return {
        name: pad_sequence([torch.tensor(row) for row in some], batch_first=True, padding_value=fill)
        for name, (some, fill) in rows.items()
    }


def _tensors(out):
    """Whether it is the dict that is asked for: what is wrong elsewhere is told elsewhere."""
    names = {"input_ids", "labels", "attention_mask"}
    return isinstance(out, dict) and out.keys() == names and all(isinstance(x, torch.Tensor) for x in out.values())


@exercise.law("All three are int64, of the same shape")
def ids_are_int64(out, one, call):
    return (
        _tensors(out) and len({x.shape for x in out.values()}) == 1 and {x.dtype for x in out.values()} == {torch.int64}
    )


@exercise.law("Every row learns its end, and learns nothing at padding")
def ends_are_learnt(out, one, call):
    if not _tensors(out):
        return False
    eos = one.kwargs.get("eos", EOS)
    last = out["attention_mask"].sum(-1, keepdim=True) - 1
    if out["labels"].shape != out["attention_mask"].shape or bool((last < 0).any()):
        return False
    padding = out["attention_mask"] == 0
    return bool((out["labels"].gather(-1, last) == eos).all()) and bool((out["labels"][padding] == -100).all())


def _data(
    end=_ended,
    empty=lambda end: len(end) < 2,
    fits=lambda n, most: n <= most,
    cut=None,
    known=lambda pair, pairs: pair in pairs,
    some=lambda answers: answers,
    label=lambda prompt, answer: [-100] * len(prompt) + answer,
    unlearnt=lambda ids, labels, pad: labels,
    mask=lambda ids, real, pad: real,
    fill=-100,
    left=False,
    width=None,
    dtype=torch.int64,
):
    """The data from its parts."""

    def sequence_distillation_data(prompts, answers, eos, pad, max_length):
        pairs = []
        for prompt, each in zip(prompts, answers, strict=True):
            for answer in some(each):
                a = end(answer, eos)
                if a is None or empty(a):
                    continue
                if cut:
                    a = cut(prompt, a, max_length)
                elif not fits(len(prompt) + len(a), max_length):
                    continue
                if not known((prompt, a), pairs):
                    pairs.append((prompt, a))
        longest = width(max_length) if width else max([len(p) + len(a) for p, a in pairs], default=0)

        def filled(row, with_):
            more = [with_] * (longest - len(row))
            return more + row if left else row + more

        ids = torch.tensor([filled(p + a, pad) for p, a in pairs], dtype=dtype)
        real = torch.tensor([filled([1] * len(p + a), 0) for p, a in pairs], dtype=dtype)
        labels = torch.tensor([filled(label(p, a), pad if fill is None else fill) for p, a in pairs], dtype=dtype)
        return {
            "input_ids": ids,
            "labels": unlearnt(ids, labels, pad),
            "attention_mask": mask(ids, real, pad).to(dtype),
        }

    return sequence_distillation_data


right = _data()

exercise.mistake("the prompt is learnt, too", hint="The student answers: labels are -100 at the prompt.")(
    _data(label=lambda prompt, answer: prompt + answer)
)
exercise.mistake("prompt and answer are compared as one row of ids", hint="Same prompt *and* same answer.")(
    _data(known=lambda pair, pairs: pair[0] + pair[1] in [p + a for p, a in pairs])
)
exercise.mistake("answers are compared with what stands behind their end", hint="Cut at the first eos, then compare.")(
    lambda prompts, answers, *rest: _data(known=lambda pair, pairs: False)(
        prompts, [[a for i, a in enumerate(each) if a not in each[:i]] for each in answers], *rest
    )
)
exercise.mistake("the end of the answer isn't learnt", hint="Without eos among the labels the student never stops.")(
    _data(label=lambda prompt, answer: [-100] * len(prompt) + answer[:-1] + [-100])
)
exercise.mistake("eos is missing at the end of the answers", hint="The answer ends with its first eos, included.")(
    _data(end=lambda answer, eos: answer[: answer.index(eos)] if eos in answer else None, empty=lambda end: not end)
)
exercise.mistake(
    "labels are struck out wherever the id is that of pad",
    hint="pad may be eos, or stand for a word: mask by length, not by id, or the end is never learnt.",
)(_data(unlearnt=lambda ids, labels, pad: labels.masked_fill(ids == pad, -100)))
exercise.mistake(
    "the attention mask is 0 wherever the id is that of pad", hint="pad may be eos, or stand for a word: use lengths."
)(_data(mask=lambda ids, real, pad: (ids != pad).long()))
exercise.mistake("padding is learnt", hint="Labels are -100 at padding.")(_data(fill=None))
exercise.mistake("answers that were cut off are kept", hint="No eos: the teacher hadn't finished. Leave it out.")(
    _data(end=lambda answer, eos: _ended(answer, eos) or answer)
)
exercise.mistake(
    "an answer that was cut off gets an eos", hint="It would teach the student to stop in mid-sentence. Leave it out."
)(_data(end=lambda answer, eos: _ended(answer, eos) or [*answer, eos]))
exercise.mistake("what stands behind the first eos is kept", hint="The answer ends with its first eos.")(
    _data(end=lambda answer, eos: answer if eos in answer else None)
)
exercise.mistake("empty answers are kept", hint="An answer of eos alone says nothing: leave it out.")(
    _data(empty=lambda end: False)
)
exercise.mistake("examples that are too long are cut to max_length", hint="Leave them out: their end would be lost.")(
    _data(cut=lambda prompt, answer, most: answer[: max(most - len(prompt), 0)])
)
exercise.mistake("examples of just max_length tokens are left out", hint="At most max_length: it is still allowed.")(
    _data(fits=lambda n, most: n < most)
)
exercise.mistake("max_length has no influence", hint="Longer examples are left out.")(_data(fits=lambda n, most: True))


@exercise.mistake("max_length is that of the answer alone", hint="Prompt and answer together.")
def answer_alone(prompts, answers, eos, pad, max_length):
    kept = [[a for a in some if len(_ended(a, eos) or a) <= max_length] for some in answers]
    return _data(fits=lambda n, most: True)(prompts, kept, eos, pad, max_length)


exercise.mistake("examples that are there already are kept again", hint="Keep the first of each.")(
    _data(known=lambda pair, pairs: False)
)
exercise.mistake("max_length counts what stands behind the end, too", hint="Cut at the first eos, then measure.")(
    lambda prompts, answers, eos, pad, max_length: right(
        prompts,
        [[a for a in some if len(p) + len(a) <= max_length] for p, some in zip(prompts, answers, strict=True)],
        eos,
        pad,
        max_length,
    )
)
exercise.mistake(
    "an answer is left out because another prompt has it, too",
    hint="The same example has the same prompt *and* answer.",
)(_data(known=lambda pair, pairs: pair[1] in [a for _, a in pairs]))
exercise.mistake("only the first answer to each prompt is used", hint="All answers of the teacher, in order.")(
    _data(some=lambda answers: answers[:1])
)
exercise.mistake("only the last answer to each prompt is used", hint="All answers of the teacher, in order.")(
    _data(some=lambda answers: answers[-1:])
)
exercise.mistake("padding stands on the left", hint="To train, pad on the right.")(_data(left=True))
exercise.mistake("every batch is max_length wide", hint="As wide as its longest row.")(_data(width=lambda most: most))
exercise.mistake(
    "the labels are shifted by one", hint="The model's own loss shifts them: labels stand where their ids stand."
)(
    _data(
        unlearnt=lambda ids, labels, pad: (
            torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], 1) if labels.numel() else labels
        )
    )
)
exercise.mistake("the prompt is missing in the input", hint="The student reads the prompt and answers: ids of both.")(
    lambda prompts, answers, eos, pad, max_length: right(
        [[] for _ in prompts],
        [
            [a for a in some if len(p) + len(_ended(a, eos) or a) <= max_length]
            for p, some in zip(prompts, answers, strict=True)
        ],
        eos,
        pad,
        max_length,
    )
)
exercise.mistake("the tensors are int32", hint="int64, as embeddings and losses take them.")(_data(dtype=torch.int32))
exercise.mistake("the longest examples come first", hint="In the order of the prompts and of their answers.")(
    lambda *given, **knobs: _sorted(right(*given, **knobs))
)


def _sorted(batch):
    order = batch["attention_mask"].sum(-1).argsort(descending=True, stable=True)
    return {name: rows[order] for name, rows in batch.items()}


exercise.alternative(right)


@exercise.alternative
def by_filling(prompts, answers, eos, pad, max_length):
    """Tensors of the right size first, written row by row."""
    seen = {}
    for prompt, some in zip(prompts, answers, strict=True):
        for answer in some:
            if eos not in answer or answer[0] == eos:
                continue
            row = tuple(prompt), tuple(answer[: answer.index(eos) + 1])
            if sum(map(len, row)) <= max_length:
                seen.setdefault(row)
    longest = max(len(p) + len(a) for p, a in seen)
    ids = torch.full((len(seen), longest), pad)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, (p, a) in enumerate(seen):
        end = len(p) + len(a)
        ids[i, :end] = torch.tensor(p + a)
        labels[i, len(p) : end] = torch.tensor(a)
        mask[i, :end] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}

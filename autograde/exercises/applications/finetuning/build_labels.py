"""`build_labels(ids, header, end, ignore_index=-100)`

Labels for supervised fine-tuning: only what the assistant says is scored.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case
from autograde.exercises.shared import pick

exercise = Draft(
    "build_labels",
    points=3,
    no_gradient="ids are whole numbers",
    fresh=True,
    hints=[
        "Where does an answer begin, and what is its last token? Walk along one row by hand, with a pencil.",
        "An answer begins behind each place where the whole header stands, ids[row, i : i + len(header)], and ends "
        "with the next `end`, which is scored, too: else the model never learns to stop.",
        "labels = torch.full_like(ids, ignore_index); for each row walk through the places with a flag `speaks`: copy "
        "the id while it is True, switch it off at `end`, and on where the header has just been completed.",
    ],
)

NEWLINE, USER, ASSISTANT, SYSTEM, CLOSE, LIKE = 10, 11, 12, 13, 14, 15


def _row(g, turns, opening, end, header):
    """A conversation's ids: (role, length) turns; `header` is the assistant's whole one."""
    ids = []
    for role, length in turns:
        if role == LIKE:  # as the assistant's header, but for its last id
            ids += [*header[:-1], USER]
        else:
            ids += [opening, *header[1:]] if role == ASSISTANT else [opening, role, *header[2:]]
        words = torch.randint(20, 90, (length,), generator=g).tolist()
        if role == USER and length > 2:
            words[:2] = [ASSISTANT, NEWLINE]  # somebody speaks of assistants
        ids += [*words, end, NEWLINE]
    return ids


@exercise.cases
def chats(g):
    def batch(rows, label, pad=0, left=False, cut=None, long=False, **knobs):
        opening, end = (2, 3) if pick(g, 0, 1) else (3, 2)
        header = (opening, ASSISTANT, CLOSE, NEWLINE) if long else (opening, ASSISTANT, NEWLINE)
        made = [_row(g, turns, opening, end, header) for turns in rows]
        made = [row[:cut] for row in made] if cut else made
        pad = end if pad == "end" else pad
        n = max(map(len, made))
        full = [[pad] * (n - len(row)) * left + row + [pad] * (n - len(row)) * (not left) for row in made]
        return case(torch.tensor(full), header, end, label=label, **knobs)

    def some(low=3, high=6):
        return pick(g, low, high)

    asked, said = (USER, some()), (ASSISTANT, some())
    yield batch([[asked, said]], "one question, one answer")
    yield batch([[asked, said], [(USER, 4), (ASSISTANT, 9)], [(USER, 7), (ASSISTANT, 1)]], "three rows, padded")
    yield batch([[(SYSTEM, 3), asked, said, asked, (ASSISTANT, 2), asked, (ASSISTANT, 5)]], "three rounds")
    two = [[asked, said], [(SYSTEM, 4), (USER, 5), (ASSISTANT, 3), asked, said]]
    yield batch(two, "padding with the end mark", pad="end")
    yield batch(two[::-1], "padding on the left", left=True)
    yield batch(two[::-1], "padding on the left with the end mark", pad="end", left=True)
    yield batch([[asked, (ASSISTANT, 20)], [(USER, 9), (ASSISTANT, 20)]], "answers cut off by the length", cut=18)
    yield batch([[(USER, 6), (ASSISTANT, 9)]], "cut off within the header", cut=12)
    yield batch([[asked, (ASSISTANT, 0), asked, said]], "an empty answer")
    yield batch([[said, (ASSISTANT, 4), asked]], "the assistant speaks first, twice, and not last")
    yield batch([[asked], [(SYSTEM, 2), asked]], "no answer at all")
    yield batch([[asked, said], [(USER, 3), (ASSISTANT, 7)]], "a header of four ids", long=True)
    yield batch([[asked, (LIKE, 4), said, (LIKE, 3)]], "a header that differs in its last id")
    yield batch([[asked, said, (USER, 8), said]], "another mark for what is ignored", ignore_index=-1)
    yield batch([[asked, said]], "0 marks what is ignored", ignore_index=0)
    yield batch([[asked, said] * 12, [(USER, 150), (ASSISTANT, 40)]], "long rows")


@exercise.oracle
def transformers_mask(ids, header, end, ignore_index=-100):
    """What transformers marks as the assistant's when it renders the same conversations with a ChatML template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (
        "{% for m in messages %}{{ m['open'] }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
        "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{{ m['rest'] }}{% endfor %}"
    )
    labels = torch.full_like(ids, ignore_index)
    for row, own in zip(labels, ids.tolist(), strict=True):
        starts = [i for i, token in enumerate(own) if token == header[0]]
        chat = []
        for start, stop in zip(starts, [*starts[1:], len(own)], strict=True):
            turn = own[start:stop]
            body = turn[len(header) :]
            close = body.index(end) + 1 if end in body else len(body)
            role = "assistant" if tuple(turn[: len(header)]) == tuple(header) else "another"
            parts = {"open": turn[: len(header)], "content": body[:close], "rest": body[close:]}
            chat.append({"role": role} | {name: "".join(map(chr, part)) for name, part in parts.items()})
        if not chat:
            continue
        _, spans = render_jinja_template([chat], chat_template=template, return_assistant_tokens_mask=True)
        for begin, stop in spans[0]:
            at = slice(starts[0] + begin, starts[0] + stop)
            row[at] = torch.tensor(own[at])
    return labels


@exercise.law("A label is the token of its own place, or ignored")
def own_token(out, one, call):
    ignored = one.kwargs.get("ignore_index", -100)
    return bool(((out == one.args[0]) | (out == ignored)).all()) if out.shape == one.args[0].shape else "another shape"


@exercise.law("Of each answer that is complete, the end mark is scored, and of nothing else")
def stops_are_learnt(out, one, call):
    ids, header, end = one.args
    wanted = []
    for row in ids.tolist():
        speaks, count = False, 0
        for i, token in enumerate(row):
            count += speaks and token == end
            speaks = (speaks and token != end) or tuple(row[max(0, i + 1 - len(header)) : i + 1]) == tuple(header)
        wanted.append(count)
    return (out == end).sum(-1).tolist() == wanted


@exercise.law("What the user says doesn't change what is scored")
def user_is_silent(out, one, call):
    ids, header, end = one.args
    ignored = one.kwargs.get("ignore_index", -100)
    quiet = (out == ignored) & (ids >= 20)
    if not bool(quiet.any()):
        return None
    return torch.equal(call(torch.where(quiet, ids + 100, ids), header, end, **one.kwargs), out)


@exercise.law("Labels are int64")
def int64(out, one, call):
    return out.dtype is torch.int64 or f"they are {out.dtype}"


def _headers(row, header):
    """Where an answer begins: behind each header."""
    n = len(header)
    return [i + n for i in range(len(row) - n + 1) if row[i : i + n] == list(header)]


def _last(row, start, end):
    """The end of an answer: its end mark, or the row's end."""
    return row.index(end, start) + 1 if end in row[start:] else len(row)


def _labels(starts=_headers, stop=_last, first=0, last=0, pick=lambda spans: spans, ready=None, before=None):
    """`build_labels` with some of its parts exchanged."""

    def build_labels(ids, header, end, ignore_index=-100):
        labels = torch.full_like(ids, ignore_index)
        for row, own in zip(labels, ids.tolist(), strict=True):
            for a, b in pick([(at, stop(own, at, end)) for at in starts(own, header)]):
                for i in range(max(0, a + first), min(len(own), b + last)):
                    row[i] = own[i]
        return ready(labels, ids, end, ignore_index) if ready else labels

    return build_labels


right = _labels()


@exercise.mistake("everything is scored, the question too", hint="Only what stands behind a header, up to `end`.")
def all_scored(ids, header, end, ignore_index=-100):
    return ids.clone()


exercise.mistake(
    "the end mark isn't scored", hint="Without it the model never learns to stop: it belongs to the answer."
)(_labels(last=-1))
exercise.mistake(
    "what follows the end mark is scored, too", hint="The template writes the line break, not the assistant."
)(_labels(last=1))
exercise.mistake("the header is scored, too", hint="The header is given to the model. The answer begins behind it.")(
    _labels(starts=lambda row, header: [at - len(header) for at in _headers(row, header)])
)
exercise.mistake(
    "the last token of the header is scored, too", hint="The answer begins at i + len(header), not one before."
)(_labels(first=-1))
exercise.mistake(
    "the first token of an answer isn't scored", hint="The header's last position predicts it: it is a label."
)(_labels(first=1))
exercise.mistake("only the last answer is scored", hint="A conversation has many answers. Find every header.")(
    _labels(pick=lambda spans: spans[-1:])
)
exercise.mistake("only the first answer is scored", hint="A conversation has many answers. Find every header.")(
    _labels(pick=lambda spans: spans[:1])
)
exercise.mistake(
    "from the first answer on everything is scored", hint="`end` closes an answer; the next question isn't scored."
)(_labels(stop=lambda row, start, end: len(row)))
exercise.mistake("from the last answer on everything is scored", hint="`end` closes it; padding isn't scored.")(
    _labels(pick=lambda spans: spans[-1:], stop=lambda row, start, end: len(row))
)
exercise.mistake(
    "an answer that is cut off loses its last token", hint="Without an end mark it goes on up to the row's end."
)(_labels(stop=lambda row, start, end: _last(row, start, end) - (end not in row[start:])))
exercise.mistake("the end mark of an empty answer isn't scored", hint="To say nothing is an answer, too: it ends.")(
    _labels(stop=lambda row, start, end: start if row[start : start + 1] == [end] else _last(row, start, end))
)
exercise.mistake("the end mark is looked for from the row's beginning", hint="The next one behind the header.")(
    _labels(stop=lambda row, start, end: _last(row, 0, end))
)
exercise.mistake(
    "an answer without an end mark isn't scored",
    hint="A row that was cut off has no `end`. What is left of the answer is an answer.",
)(_labels(stop=lambda row, start, end: _last(row, start, end) if end in row[start:] else start))
exercise.mistake(
    "the header is looked for by its role alone",
    hint="A user may write the word 'assistant'. The whole header counts, mark and line break.",
)(
    _labels(
        starts=lambda row, header: [i + len(header) - 1 for i, token in enumerate(row) if token == header[1]],
    )
)


exercise.mistake("only the first two ids of a header are compared", hint="The whole header: it may have more.")(
    _labels(
        starts=lambda row, header: [
            i + len(header) for i in range(len(row) - 1) if tuple(row[i : i + 2]) == tuple(header[:2])
        ]
    )
)
exercise.mistake("every turn is scored", hint="The opening mark begins a user's turn, too. Compare the whole header.")(
    _labels(starts=lambda row, header: [i + len(header) for i, token in enumerate(row) if token == header[0]])
)
exercise.mistake(
    "every end mark is scored", hint="The user's turns end, too, and padding may be the same id. Answers only."
)(_labels(ready=lambda labels, ids, end, ignored: torch.where(ids == end, ids, labels)))
exercise.mistake(
    "labels are shifted by one, and the loss will shift them again",
    hint="transformers shifts inside its loss. The label of place i is the token of place i.",
)(
    _labels(
        ready=lambda labels, ids, end, ignored: torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], ignored)], 1)
    )
)
exercise.mistake("what is scored and what isn't are exchanged", hint="The assistant's tokens keep their ids.")(
    _labels(ready=lambda labels, ids, end, ignored: torch.where(labels == ignored, ids, ignored))
)
exercise.mistake("-100 is written, whatever ignore_index says", hint="It is a parameter.")(
    lambda ids, header, end, ignore_index=-100: right(ids, header, end)
)
exercise.mistake("what isn't scored gets 0", hint="0 is a token. cross_entropy skips ignore_index.")(
    lambda ids, header, end, ignore_index=-100: right(ids, header, end, 0)
)
exercise.mistake("labels are 1 and 0: a mask", hint="Labels hold ids.")(
    lambda ids, header, end, ignore_index=-100: (right(ids, header, end, ignore_index) != ignore_index).long()
)
exercise.mistake("every row is scored where the first one is", hint="Each row has its own turns.")(
    lambda ids, header, end, ignore_index=-100: torch.where(
        right(ids, header, end, ignore_index)[:1] == ignore_index, ignore_index, ids
    )
)
exercise.mistake("labels are int32", hint="cross_entropy asks for int64 labels.")(
    lambda ids, header, end, ignore_index=-100: right(ids, header, end, ignore_index).int()
)
exercise.mistake(
    "the header is taken to have three ids", hint="Its length is len(header): Llama 3's, for one, has four."
)(
    _labels(starts=lambda row, header: [at - len(header) + 3 for at in _headers(row, header)]),
)


exercise.mistake(
    "everything but the end marks is scored", hint="Only what the assistant says, and there the end mark as well."
)(lambda ids, header, end, ignore_index=-100: ids.masked_fill(ids == end, ignore_index))


@exercise.alternative
def by_flag(ids, header, end, ignore_index=-100):
    """One walk along each row, with a flag."""
    out = []
    for row in ids.tolist():
        labels, speaks = [], False
        for i, token in enumerate(row):
            labels.append(token if speaks else ignore_index)
            speaks = (speaks and token != end) or row[max(0, i + 1 - len(header)) : i + 1] == list(header)
        out.append(labels)
    return torch.tensor(out, dtype=torch.int64)


@exercise.alternative
def by_sums(ids, header, end, ignore_index=-100):
    """No loop over tokens: how many headers were completed before a place, since the last end mark."""
    n = len(header)
    if ids.shape[1] < n:
        return torch.full_like(ids, ignore_index)
    complete = (ids.unfold(1, n, 1) == torch.tensor(header)).all(-1)
    begins = torch.zeros_like(ids, dtype=torch.bool)
    begins[:, n:] = complete[:, : ids.shape[1] - n]
    place = torch.arange(ids.shape[1]).expand_as(ids)
    last_begin = torch.where(begins, place, -1).cummax(1).values
    ended = torch.nn.functional.pad((ids == end)[:, :-1], (1, 0))
    last_end = torch.where(ended, place, -1).cummax(1).values
    return torch.where((last_begin >= 0) & (last_begin >= last_end), ids, ignore_index)

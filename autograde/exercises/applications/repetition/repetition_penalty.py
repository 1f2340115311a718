"""`repetition_penalty(logits, ids, penalty)`

Make every token that occurred less likely: divide its logit, or multiply one below 0.
"""

from __future__ import annotations

import torch

from autograde.exercise import Draft, case, same
from autograde.exercises.applications.repetition.shared import (
    ABSENT_UNTOUCHED,
    ANY_ORDER,
    OWN_DTYPE,
    OWN_HISTORY,
    again,
    by_row,
    by_sign,
    occurred,
    penalized,
    randn,
    right_penalty,
    seen,
    shared,
    some_tokens,
    tells,
    texts,
)
from autograde.exercises.shared import logits_processor

exercise = Draft(
    "repetition_penalty",
    points=3,
    forbid=["transformers"],
    no_gradient="it is used while a model writes, where nothing is trained",
    fresh=True,
    dtypes=(torch.float64,),
    hints=[
        "What does a division by 1.2 do to a logit of 4, and what to one of -4? Which way should both go?",
        "Read the logits of the tokens that occurred (gather), divide the positive ones and multiply the negative "
        "ones, and write them back (scatter). A token that occurs twice is then written twice with the same value.",
        "`old = logits.gather(-1, ids)`, `new = torch.where(old < 0, old * penalty, old / penalty)`, "
        "`logits.scatter(-1, ids, new)`.",
    ],
)


@exercise.cases
def penalty_cases(g):
    penalties = [1.2, 1.5, 1.1, 1.3, 2.0, 1.2, 1.4, 1.2, 1.25, 1.6, 1.3, 1.7]
    for (logits, ids, special), penalty in zip(texts(g), penalties, strict=True):
        yield case(logits, ids, penalty, label=special)
    yield case(randn(g, 2, 7), some_tokens(g, 7, 2, 4), penalty=0.7, label="a penalty below 1, by keyword")
    yield case(randn(g, 2, 7), some_tokens(g, 7, 2, 4), 1.0, label="penalty 1")
    yield case(randn(g, 2, 7).bfloat16(), some_tokens(g, 7, 2, 4), 1.5, label="bfloat16")


@exercise.oracle
def hf_penalty(logits, ids, penalty):
    processor = logits_processor("RepetitionPenaltyLogitsProcessor")(float(penalty))
    return by_row(lambda rows, texts: processor(texts, rows), logits, ids)


exercise.law(ABSENT_UNTOUCHED)


def _penalty(one):
    return one.args[2] if len(one.args) > 2 else one.kwargs["penalty"]


@exercise.law("With a penalty above 1, no token that occurred becomes likelier")
def never_likelier(out, one, call):
    logits, ids = one.args[:2]
    return None if _penalty(one) < 1 else bool((out <= logits)[occurred(logits, ids)].all())


@exercise.law("A text said twice is penalized like a text said once")
def once_is_enough(out, one, call):
    logits, ids = one.args[:2]
    return same(again(one, call, logits, torch.cat([ids, ids], -1)), out) if tells(one) else None


@exercise.law("The reciprocal penalty undoes it")
def reciprocal_undoes(out, one, call):
    logits, ids = one.args[:2]
    if logits.dtype is torch.bfloat16 or not tells(one):
        return None
    return same(call(out, ids, 1 / _penalty(one)), logits)


exercise.law(ANY_ORDER)

exercise.law(OWN_HISTORY)

exercise.law(OWN_DTYPE)

exercise.mistake(
    "negative logits are divided, too", hint="-4 / 1.2 is -3.3: *more* likely. A negative logit has to be multiplied."
)(penalized(lambda x, p: x / p))

exercise.mistake(
    "positive logits are multiplied, too", hint="4 * 1.2 is 4.8: *more* likely. A positive logit has to be divided."
)(penalized(lambda x, p: x * p))

exercise.mistake(
    "positive logits are multiplied and negative ones divided", hint="That makes what occurred likelier. Turn it round."
)(penalized(lambda x, p: torch.where(x < 0, x / p, x * p)))


@exercise.mistake(
    "the penalty is applied again for every time the token occurred",
    hint="It counts whether a token occurred, not how often. (The frequency penalty counts.)",
)
def once_each_time(logits, ids, penalty):
    power = penalty ** seen(logits, ids)
    return torch.where(logits < 0, logits * power, logits / power)


exercise.mistake("the penalty is subtracted", hint="This one divides or multiplies. (The presence penalty subtracts.)")(
    penalized(lambda x, p: x - p)
)

exercise.mistake(
    "the logarithm of the penalty is subtracted",
    hint="That divides the odds by the penalty. CTRL's penalty divides the logit itself.",
)(penalized(lambda x, p: x - torch.tensor(p).log().to(x.dtype)))

exercise.mistake("tokens that occurred are forbidden altogether", hint="They become less likely, not impossible.")(
    penalized(lambda x, p: torch.full_like(x, -torch.inf) if p != 1 else x)
)


@exercise.mistake("the tokens that did not occur are penalized", hint="Penalize the tokens in `ids`.")
def unseen_penalised(logits, ids, penalty):
    return torch.where(seen(logits, ids) > 0, logits, by_sign(logits, penalty))


@exercise.mistake("the whole vocabulary is penalized", hint="Only the tokens in `ids`: the others keep their logits.")
def whole_vocabulary(logits, ids, penalty):
    return by_sign(logits, penalty)


@exercise.mistake("only the last token of the text is penalized", hint="Every token of the text, however far back.")
def last_token_alone(logits, ids, penalty):
    return right_penalty(logits, ids[..., -1:], penalty)


@exercise.mistake("the last token of the text is forgotten", hint="Every token of the text, the last one too.")
def last_token_forgotten(logits, ids, penalty):
    return right_penalty(logits, ids[..., :-1], penalty)


@exercise.mistake("the first token of the text is forgotten", hint="Every token of the text, the first one too.")
def first_token_forgotten(logits, ids, penalty):
    return right_penalty(logits, ids[..., 1:], penalty)


exercise.mistake(
    "a penalty below 1 is treated as 1", hint="Below 1 it rewards repetition: the same formula, no limit."
)(penalized(lambda x, p: by_sign(x, max(p, 1.0))))

exercise.mistake(
    "log-probabilities are penalized instead of logits",
    hint="Penalize the logits as they come. Log-probabilities are below 0: all would be multiplied.",
)(penalized(lambda x, p: x.log_softmax(-1) * p))


@exercise.mistake(
    "what one text of the batch said is penalized in all", hint="Each row of ids belongs to its own row of logits."
)
def history_shared(logits, ids, penalty):
    return right_penalty(logits, shared(ids), penalty)


@exercise.mistake(
    "the softmax is taken as well",
    hint="Hand logits on: other processors may follow. The softmax comes once, at the very end.",
)
def as_probabilities(logits, ids, penalty):
    return right_penalty(logits, ids, penalty).softmax(-1)


@exercise.mistake("the result is left in float32", hint="Give the result the dtype of the logits.")
def penalty_in_float32(logits, ids, penalty):
    return right_penalty(logits.float(), ids, penalty)


exercise.mistake("negative logits stay as they are", hint="A negative logit is multiplied: that makes it smaller.")(
    penalized(lambda x, p: torch.where(x < 0, x, x / p))
)

exercise.mistake("positive logits stay as they are", hint="A positive logit is divided.")(
    penalized(lambda x, p: torch.where(x < 0, x * p, x))
)

exercise.mistake("with penalty 1 the logits themselves are handed back", hint="A new tensor, always: logits.clone().")(
    lambda logits, ids, penalty: logits if penalty == 1 else right_penalty(logits, ids, penalty)
)

exercise.mistake("the logits are changed in place", hint="The input stays as it was: work on logits.clone().")(
    lambda logits, ids, penalty: logits.copy_(right_penalty(logits, ids, penalty))
)

exercise.mistake("only the latest 64 tokens of the text count", hint="Every token of the text, however far back.")(
    lambda logits, ids, penalty: right_penalty(logits, ids[..., -64:], penalty)
)

exercise.mistake("the text of the first row is used for all rows", hint="Each row of ids belongs to its own logits.")(
    lambda logits, ids, penalty: right_penalty(
        logits, ids.reshape(-1, ids.shape[-1])[0].expand(ids.shape).contiguous(), penalty
    )
)

exercise.alternative(right_penalty)


@exercise.alternative
def penalty_by_gather(logits, ids, penalty):
    old = logits.gather(-1, ids)
    return logits.scatter(-1, ids, torch.where(old > 0, old / penalty, old * penalty))


@exercise.alternative
def penalty_by_loop(logits, ids, penalty):
    out = logits.clone().reshape(-1, logits.shape[-1])
    for row, tokens in zip(out, ids.reshape(len(out), -1).tolist(), strict=True):
        for token in set(tokens):
            row[token] = row[token] * penalty if row[token] < 0 else row[token] / penalty
    return out.reshape(logits.shape)

"""What a check does with solutions that run on several ranks."""

from __future__ import annotations

from dataclasses import replace

import psutil
import torch
import torch.distributed as dist

from autograde.exercise import Exercise, Law, Misconception, case
from autograde.judging.grading import grade


def mean(x):
    x = x[dist.get_rank()].clone()
    dist.all_reduce(x)
    return x / dist.get_world_size()


def total(x):
    x = x[dist.get_rank()].clone()
    dist.all_reduce(x)
    return x


def stuck(x):
    x = x[dist.get_rank()].clone()
    if dist.get_rank():
        dist.all_reduce(x)
    else:
        dist.recv(x, src=1)
    return x


def draw(generator):
    for ranks in (2, 3):
        yield case(torch.randn(ranks, 5, generator=generator), label=f"{ranks} ranks", ranks=ranks)


def one_message(out, one, call):
    return all([m.op for m in sent] == ["all_reduce"] for sent in out.traffic)


MEAN = Exercise(
    name="toy_mean",
    points=2,
    cases=draw,
    oracle=lambda x: [x.mean(0)] * len(x),
    laws=[Law("sends one message", one_message)],
    misconceptions=[
        Misconception("the sum isn't divided by the number of ranks", total, "What does all_reduce do by default?"),
        Misconception("rank 0 waits for a message that nobody sends", stuck, "Who sends?", hangs=True),
    ],
    alternatives=[],
    ranks=True,
    dtypes=(),
    strides=False,
)


def test_a_correct_solution_gets_full_marks():
    report = grade(MEAN, mean)
    assert report.solved, report.text()


def test_a_closure_is_sent_to_the_ranks():
    scale = 1.0
    assert grade(MEAN, lambda x: mean(x) * scale).solved


def test_a_wrong_value_is_diagnosed():
    report = grade(MEAN, total)
    assert report.misconception == "the sum isn't divided by the number of ranks"
    assert report.earned == 1.0


def test_right_values_with_too_many_messages_break_the_law():
    def twice(x):
        mean(x)
        return mean(x)

    report = grade(MEAN, twice)
    assert [line.passed for line in report.lines] == [True, False]


def test_who_sends_other_bytes_breaks_the_law_in_another_way():
    def twice(x):
        mean(x)
        return mean(x)

    def a_number_more(x):
        dist.all_reduce(torch.zeros(1))
        return mean(x)

    exercise = replace(MEAN, misconceptions=[Misconception("all is sent twice", twice, "Once is enough.")])
    assert grade(exercise, twice).misconception == "all is sent twice"
    report = grade(exercise, a_number_more)
    assert not report.misconception and "one law doesn't hold" in report.diagnosis


def test_a_deadlock_is_cut_explained_and_leaves_nothing_behind():
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    report = grade(MEAN, stuck)
    assert report.earned == 0
    assert "rank 0 waits in recv" in report.text().replace("\n", " ")
    assert report.misconception == "rank 0 waits for a message that nobody sends"
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [p for p in left if p.is_running() and "forkserver" not in " ".join(p.cmdline())]


def test_an_error_on_one_rank_is_shown_as_the_learners_own():
    def fails(x):
        if dist.get_rank() == 1:
            raise ValueError("no such rank")
        return mean(x)

    text = grade(MEAN, fails).text()
    assert "ValueError: no such rank" in text
    assert "in fails" in text and "running.py" not in text


def single_numbers_too(generator):
    for shape, label in (((5,), "a vector"), ((2, 3), "a matrix"), ((), "single numbers"), ((1,), "one number")):
        yield case(torch.randn(2, *shape, generator=generator), label=label, ranks=2)


def test_what_fails_on_all_ranks_before_a_word_is_said_fails_alone():
    def no_numbers(x):
        return mean(x[:, list(range(len(x[0])))])

    report = grade(replace(MEAN, cases=single_numbers_too), no_numbers)
    assert "(3 of 4 cases)" in report.lines[0].name
    assert report.diagnosis.endswith("is right on the others: `single numbers`.")


def test_a_failure_that_ends_the_launch_is_told_of_no_case():
    def no_numbers_on_rank_1(x):
        return mean(x) if x.dim() > 1 or dist.get_rank() == 0 else mean(x[:, None, None, :])

    def no_numbers_after_a_word(x):
        return [*mean(x)]

    for fails in (no_numbers_on_rank_1, no_numbers_after_a_word):
        report = grade(replace(MEAN, cases=single_numbers_too), fails)
        assert report.diagnosis == "Your code ends in an error in at least one case on 2 ranks."


def test_unsolved_is_told_from_wrong():
    def unsolved(x):
        raise NotImplementedError

    assert grade(MEAN, unsolved).status == "not implemented"


def test_a_changed_input_and_prints_are_noticed():
    def careless(x):
        print("hello from", dist.get_rank())
        x += 0.5
        return mean(x - 0.5)

    report = grade(MEAN, careless)
    assert "changes its input in place" in report.text()
    assert "hello from" in report.printed


def test_a_deadlock_after_a_case_that_went_well_is_shown_as_one():
    def cases(generator):
        for ranks in (1, 2, 3):
            yield case(torch.randn(ranks, 5, generator=generator), label=f"{ranks} ranks", ranks=ranks)

    def sends_first(x):
        rank, world = dist.get_rank(), dist.get_world_size()
        x = x[rank].clone()
        if world > 1:
            dist.send(x, (rank + 1) % world)
            dist.recv(x, (rank - 1) % world)
        return x

    report = grade(replace(MEAN, cases=cases), sends_first)
    text = report.text().replace("\n", " ")
    assert "(1 of 3 cases)" in text and "waits in send" in text
    assert "a list of 1" not in text
    assert "__torch_" not in text, "a mode's frame hides the learner's own line"

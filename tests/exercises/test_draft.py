"""A Draft takes the parts of an exercise in the order of its file, and what it makes can't be changed."""

from __future__ import annotations

import dataclasses

import pytest

from autograde.exercise import Draft, Law, Misconception, case


def drafted() -> Draft:
    exercise = Draft("double", points=1, hints=["a", "b", "c"], dtypes=[], no_gradient="it doubles whole numbers")

    @exercise.cases
    def some(g):
        yield case(2)

    @exercise.oracle
    def right(x):
        return 2 * x

    @exercise.law("It is even")
    def even(out, one, call):
        return out % 2 == 0

    exercise.law(Law("It is a number", lambda out, one, call: isinstance(out, int)))

    @exercise.mistake("it is squared", hint="Twice, not times itself.")
    def squared(x):
        return x * x

    exercise.mistake("nothing comes back", hint="return", hangs=True)(print)

    @exercise.alternative
    def added(x):
        return x + x

    assert added(3) == 6, "a decorated function stays what it is"
    return exercise


def test_parts_come_in_the_order_of_the_file():
    exercise = drafted().finished()
    assert [law.name for law in exercise.laws] == ["It is even", "It is a number"]
    first, second = exercise.misconceptions
    assert (first.says, first.hint, first.implementation(3)) == ("it is squared", "Twice, not times itself.", 9)
    assert second == Misconception("nothing comes back", print, "return", True)
    assert exercise.oracle(4) == 8 and [one.args for one in exercise.draw(0)] == [(2,)]
    assert len(exercise.alternatives) == 1 and exercise.hints == ("a", "b", "c")


def test_a_finished_exercise_cannot_be_changed():
    draft = drafted()
    exercise = draft.finished()
    assert draft.finished() is exercise
    with pytest.raises(dataclasses.FrozenInstanceError):
        exercise.points = 100
    for field in dataclasses.fields(exercise):
        assert not isinstance(getattr(exercise, field.name), (list, dict, set)), field.name
    with pytest.raises(RuntimeError, match="double is finished"):
        draft.alternative(abs)
    with pytest.raises(RuntimeError, match="double is finished"):
        draft.law("One more")(abs)
    assert len(exercise.alternatives) == 1


def test_a_part_that_stands_twice_is_an_error():
    with pytest.raises(ValueError, match="two of oracle"):
        drafted().oracle(abs)

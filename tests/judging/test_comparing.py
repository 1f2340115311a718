"""What agrees with what."""

import itertools
import math

import pytest
import torch

from autograde.judging.comparing import compare

FAR = [
    (torch.tensor([32000]), torch.tensor([32001])),
    (32000, 32001),
    (2**70, 2**70 + 1),
    (torch.tensor(2**62), torch.tensor(2**62 + 1)),
    (1e200, math.inf),
    (1e39, 1e300),
    (math.inf, -math.inf),
    (torch.tensor([1e39], dtype=torch.float64), torch.tensor([math.inf])),
    ([1, 2, 3], [1, 2, 4]),
    (torch.tensor([True]), torch.tensor([False])),
    (5, 5.001),
    (5, True),
    (1.0, "1.0"),
    ({"a": 1}, {"a": 2}),
    (math.nan, math.nan),
    (1e-3, 1.5e-3),
]
NEAR = [
    (torch.tensor([1.0]), torch.tensor([1.00001])),
    (1.0, torch.tensor(1.00001)),
    (torch.tensor(3), 3),
    (3, 3.0),
    (3.0, 3),
    (math.inf, math.inf),
    ((1, 2), [1, 2]),
    (2**70, 2**70),
    (torch.tensor([1.0]).bfloat16(), torch.tensor([1.02]).bfloat16()),
    (torch.tensor([2], dtype=torch.int32), torch.tensor([2])),
]


@pytest.mark.parametrize(("expected", "got"), FAR)
def test_what_differs_is_told_in_one_sentence(expected, got):
    mismatch = compare(expected, got)
    assert mismatch and "the result" in mismatch.message and "\n" not in mismatch.message


@pytest.mark.parametrize(("expected", "got"), NEAR)
def test_what_agrees(expected, got):
    assert compare(expected, got) is None


def test_in_json_a_whole_number_is_no_float():
    assert compare({"a": [3]}, {"a": [3.0]}, strict=True).message == "item 0 of the result['a'] should be 3, and is 3.0"
    assert compare(3.0, 3, strict=True)
    assert compare({"a": [3, 3.0]}, {"a": [3, 3.0]}, strict=True) is None


def test_few_digits_are_no_excuse_where_precision_is_promised():
    one, other = torch.tensor([1.0]).bfloat16(), torch.tensor([1.02]).bfloat16()
    assert compare(one, other, precise=True)


def test_the_first_wrong_whole_number_is_shown():
    assert compare(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [0, 0]])).message == (
        "the result is 0 at [1, 0] instead of 3"
    )


def test_numbers_are_compared_as_torch_compares_them():
    """Two Python numbers agree where torch.allclose says so of them, near the edge of what is tolerated as well."""
    some = [0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, 1e-5, 1.0001, 0.9999, math.inf, -math.inf, math.nan]
    some += [a * (1 + b) + c for a in (1.0, -3.0, 1e6) for b in (9.5e-5, -1.01e-4) for c in (0.0, 9e-6, -1.0001e-5)]
    for rtol, atol, equal_nan in itertools.product((1e-4, 0.0), (1e-5, 0.0), (True, False)):
        how = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan}
        for expected, got in itertools.product(some, some):
            pair = [torch.tensor(x, dtype=torch.float64) for x in (got, expected)]
            assert (compare(expected, got, **how) is None) == torch.allclose(*pair, **how), (expected, got, how)

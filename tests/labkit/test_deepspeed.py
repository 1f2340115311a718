"""DeepSpeed is an optional extra: where it is installed its stages are run, elsewhere a sentence says how to get it."""

from __future__ import annotations

import importlib.util

import pytest

from labkit.experiment import evidence, find_experiment

here = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed isn't installed: `pip install deepspeed==0.19.8` in the course's environment runs this test.",
)


@here
@pytest.mark.parametrize("stage", [1, 3])
def test_a_stage_trains_as_before_and_holds_a_part(stage):
    kept, arm = evidence("D02.10"), f"stage {stage}"
    found = find_experiment("D02.10").run(arm, 0)
    assert found["losses"] == pytest.approx(kept.each(arm, "losses")[0], abs=1e-3)
    assert found["optimizer"] < 0.6 * kept.each("one process", "optimizer")[0]

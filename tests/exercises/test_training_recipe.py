"""What the probes of 01_transformer/07_training_recipe see beyond the list of mistakes."""

from __future__ import annotations

import torch.nn.functional as F

from autograde.exercises import find
from autograde.judging.grading import grade


def accumulating(retain):
    def accumulate(model, batches):
        model.zero_grad()
        losses, tokens = [], sum(int((targets != -100).sum()) for _, targets in batches)
        for ids, targets in batches:
            losses.append(F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum") / tokens)
            losses[-1].backward(retain_graph=retain)
        return sum(loss.item() for loss in losses)

    return accumulate


def test_a_graph_that_backward_retains_is_seen_in_memory():
    assert grade(find("accumulate_gradients"), accumulating(False)).solved
    report = grade(find("accumulate_gradients"), accumulating(True))
    assert not report.solved and "graphs are retained" in report.diagnosis

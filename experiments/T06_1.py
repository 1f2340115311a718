"""T06.1: texts of different lengths in one batch, and what BatchNorm makes of them."""

from __future__ import annotations

import torch

from experiments.normed_lm import LENGTH, LanguageModel, draw, finite, loss_of, train
from labkit.experiment import Experiment

RATES, ROWS, STEPS = (1e-3, 3e-3, 1e-2, 3e-2), 12, 150
SHORT = 8  # letters of the text that is watched
MOVES = 0.05  # of the scores' own spread, more than neighbors of equal length move it. Stated before the run.

experiment = Experiment(
    claim="T06.1",
    question="Do different lengths make BatchNorm's statistics inconsistent, or the padding, or just neighbors?",
    arms={
        "LayerNorm, equal lengths": {"kind": "layer", "lengths": "equal"},
        "LayerNorm, ragged": {"kind": "layer", "lengths": "ragged"},
        "BatchNorm, equal lengths": {"kind": "batch", "lengths": "equal"},
        "BatchNorm, ragged, padding counted": {"kind": "batch", "lengths": "ragged"},
        "BatchNorm, ragged, padding left out": {"kind": "batch", "lengths": "ragged", "masked": True},
    },
    seeds=range(4),
    shows="BatchNorm, ragged, padding counted",
    shows_not="LayerNorm, ragged",
    live=("BatchNorm, equal lengths", 0),
    within={"loss": 0.05, "moved": 0.1, "rate": 0.03},
)


@experiment.measure
def measure(seed: int, kind: str, lengths: str, masked: bool = False) -> dict:
    """Test loss in evaluation mode, and how far a short text's scores move in training mode when neighbors change."""
    tried = {}
    for rate in RATES:
        torch.manual_seed(seed)
        net = LanguageModel(kind=kind)
        generator = torch.Generator().manual_seed(seed)
        train(net, rate, STEPS, lambda g=generator: batch("train", ROWS, lengths, masked, g)).eval()
        tried[rate] = ([_loss(net, part, lengths) for part in ("validation", "test")], net)
    best = min(tried, key=lambda rate: tried[rate][0][0])
    (_, loss), net = tried[best]
    return {"moved": moved(net, lengths, masked), "loss": loss, "rate": best}


def batch(part: str, rows: int, lengths: str, masked: bool, generator: torch.Generator) -> tuple:
    """Pieces [rows, LENGTH + 1] with padding behind each text, what the statistics count, and what the loss counts.

    Ragged texts have 4 to LENGTH letters, texts of equal lengths 26: as many in the mean. Padding is letter 0, the
    line's end.
    """
    pieces = draw(part, rows, LENGTH, generator)
    drawn = torch.randint(4, LENGTH + 1, (rows, 1), generator=generator)
    length = drawn if lengths == "ragged" else torch.full_like(drawn, (4 + LENGTH) // 2)
    real = torch.arange(LENGTH) < length
    pieces[:, :-1].masked_fill_(~real, 0)
    if lengths == "equal":
        pieces, real = pieces[:, : length.max() + 1], real[:, : length.max()]
    return pieces, real if masked else None, real


@torch.no_grad()
def _loss(net, part: str, lengths: str) -> float:
    return finite(loss_of(net, *batch(part, 400, lengths, False, torch.Generator().manual_seed(5))).item())


@torch.no_grad()
def moved(net, lengths: str, masked: bool, trials: int = 20) -> float:
    """Root mean square change of a short text's scores between two batches, in units of the scores' spread.

    In the first all texts are short. In the second the neighbors are other texts: short ones again where lengths are
    equal, else as long as can be, so that the short text is padded.
    """
    net.train()
    generator, changes, spreads = torch.Generator().manual_seed(6), [], []
    for _ in range(trials):
        before = draw("test", ROWS, LENGTH, generator)[:, :SHORT]
        after = draw("test", ROWS, LENGTH, generator)[:, : LENGTH if lengths == "ragged" else SHORT]
        after[0] = 0
        after[0, :SHORT] = before[0]
        real = torch.ones_like(after, dtype=torch.bool)
        real[0, SHORT:] = False
        first, second = net(before)[0], net(after, real if masked else None)[0, :SHORT]
        changes.append((second - first).square().mean())
        spreads.append(first.var())
    return (torch.stack(changes).mean() / torch.stack(spreads).mean()).sqrt().item()


@experiment.conclude
def conclude(found) -> dict:
    """Correct if lengths move a text also with the padding left out, imprecise if only padding does, else wrong."""
    ragged, masked = "BatchNorm, ragged, padding counted", "BatchNorm, ragged, padding left out"
    equal = "BatchNorm, equal lengths"
    more = {arm: found.interval(arm, "moved", minus=equal) for arm in (ragged, masked)}
    word = "correct" if more[masked].above(MOVES) else "imprecise" if more[ragged].above(MOVES) else "wrong"
    layer = found.interval("LayerNorm, ragged", "moved")
    return {
        "verdict": word,
        "controls": {"shows": more[ragged].above(MOVES), "shows_not": layer.below(0.001)},
        "numbers": {
            name: f"{found.interval(arm, 'moved').mean:.0%}"
            for name, arm in (("equal", equal), ("counted", ragged), ("left_out", masked))
        }
        | {
            name: f"{found.interval(arm, 'loss', minus=f'LayerNorm, {other}').mean:+.2f}".replace("-", "−")
            for name, arm, other in (
                ("lost_equal", equal, "equal lengths"),
                ("lost_counted", ragged, "ragged"),
                ("lost_left_out", masked, "ragged"),
            )
        },
    }

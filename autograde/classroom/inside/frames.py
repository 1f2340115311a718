"""The messages between grader and sandbox: one length-framed JSON header and one safetensors body, both capped.

A frame is 4 bytes of magic, two lengths (big-endian, 4 bytes each), then the JSON and the tensors. Nothing is ever
unpickled. The sizes are checked before a byte of the content is read, and what can be said in a frame is narrow:
None, bool, numbers, text, lists, tuples, dicts, and dense tensors. Strides travel only towards the sandbox (a case may
ask for a non-contiguous input); a reply has no way to say them, so a few bytes can't claim to be a gigantic tensor. Nor
can it name a tensor twice, or hold more things than anybody needs: what a reply becomes is as large as what was sent.
"""

from __future__ import annotations

import json
import os
import re
import select
import struct
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load

MAGIC = b"AG1\n"
MOST_HEADER = 4 * 2**20
MOST_BODY = 32 * 2**20
_HEAD = struct.Struct(">4sII")
_DEEP = 40  # levels of containers
_MOST_THINGS = 300_000  # numbers, texts and containers of a reply
_MOST_WHOLE = 2**64  # a task asks for one that is not torch's any more
_MOST_KINDS = 100  # other types in a message
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    )
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_STORED = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64",
}  # fmt: skip


class BadFrame(Exception):
    """What arrived is no frame, or one that says too much. The stream can't be used any further."""


class Closed(Exception):
    """The other side is gone."""


class Late(Exception):
    """Nothing, or not all of it, arrived before the deadline."""


class Opaque:
    """Stands for a value that can't travel: an instance of a class named like the value's own."""


def opaque(kind: str) -> Opaque:
    """A placeholder for a value of the type `kind` ("numpy.ndarray"), which `describe` calls by that name."""
    clean = re.sub(r"[^\w.]", "_", str(kind))[:80] or "object"
    module, _, name = clean.rpartition(".")
    return type(name or "object", (Opaque,), {"__module__": module or "builtins"})()


def pack(message: dict[str, Any], *, strided: bool = False) -> bytes:
    """A frame with `message`, whose values are plain. `strided`: keep strides and requires_grad (for inputs).

    Raises BadFrame where the frame would be over the caps.
    """
    packer = _Packer(strided)
    content = packer.coded(message)
    body = _stored(packer.tensors) if packer.tensors else b""
    header = json.dumps({"content": content, "meta": packer.meta}).encode()
    if len(header) > MOST_HEADER or len(body) > MOST_BODY:
        raise BadFrame(f"a message of {len(header) + len(body):,} bytes, which is too large")
    return _HEAD.pack(MAGIC, len(header), len(body)) + header + body


def _stored(tensors: dict[str, torch.Tensor]) -> bytes:
    """Flat tensors as safetensors' format has them. Its own `save` takes five times as long for a few small ones."""
    told, parts, end = {}, [], 0
    for name, flat in tensors.items():
        parts.append((flat.view(torch.int16) if flat.dtype is torch.bfloat16 else flat).numpy().tobytes())
        span = [end, end + len(parts[-1])]
        told[name] = {"dtype": _STORED[flat.dtype], "shape": list(flat.shape), "data_offsets": span}
        end = span[1]
    header = json.dumps(told).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + b"".join(parts)


def parts_of(frame: bytes) -> tuple[bytes, bytes]:
    """Header and body of a frame, as `unpack` takes them."""
    _, header, body = _HEAD.unpack(frame[: _HEAD.size])
    start = _HEAD.size + header
    return frame[_HEAD.size : start], frame[start : start + body]


class _Packer:
    def __init__(self, strided: bool):
        self.strided, self.tensors, self.meta, self.known = strided, {}, [], {}
        self.size = 0

    def coded(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEP:
            raise BadFrame("a value with too many levels")
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind in (list, tuple) or isinstance(value, (list, tuple)):
            tag = "tuple" if isinstance(value, tuple) else "list"
            return {tag: [self.coded(item, depth + 1) for item in value]}
        if isinstance(value, dict):
            pairs = [[self.coded(k, depth + 1), self.coded(v, depth + 1)] for k, v in value.items()]
            return {"dict": pairs}
        if isinstance(value, torch.Tensor):
            return {"tensor": self.tensor(value)}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is torch.dtype:
            return {"dtype": str(value).removeprefix("torch.")}
        return {"opaque": f"{kind.__module__}.{kind.__qualname__}"}

    def tensor(self, value: torch.Tensor) -> int:
        if self.strided and id(value) in self.known:  # the same input twice stays the same tensor
            return self.known[id(value)]
        index = self.known[id(value)] = len(self.meta)
        meta = {"shape": list(value.shape), "dtype": _NAMES.get(value.dtype)}
        flat = value.detach()
        if self.strided:
            meta |= {"stride": list(value.stride()), "grad": value.requires_grad}
            if flat.numel() and not flat.is_contiguous():  # else a copy of its numbers is what its memory holds
                span = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
                flat = flat.as_strided((span,), (1,))
        self.size += flat.numel() * flat.element_size()
        if self.size > MOST_BODY:
            raise BadFrame("a message that is too large")
        flat = flat.reshape(-1)
        self.tensors[str(index)] = torch.view_as_real(flat) if flat.is_complex() else flat
        self.meta.append(meta)
        return index


def unpack(header: bytes, body: bytes, *, strided: bool = False) -> dict[str, Any]:
    """The message of a frame. Raises BadFrame for anything that `pack` would not have written."""
    try:
        said = json.loads(header)
        tensors = load(body) if body else {}
        metas = said["meta"]
        if not isinstance(metas, list) or len(metas) != len(tensors):
            raise BadFrame("a message that promises other tensors than it brings")
        made = [_tensor(meta, tensors[str(i)], strided) for i, meta in enumerate(metas)]
        content = _Decoder(made, strided).value(said["content"], 0)
    except BadFrame:
        raise
    except (Exception, RecursionError) as error:
        raise BadFrame(f"a message that can't be read ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise BadFrame("a message that is no record")
    return content


def _tensor(meta: dict, flat: torch.Tensor, strided: bool) -> torch.Tensor:
    dtype, shape = _DTYPES[meta["dtype"]], meta["shape"]
    if not all(type(n) is int and 0 <= n < 2**31 for n in shape) or len(shape) > 16:
        raise BadFrame("a tensor of an impossible shape")
    if dtype.is_complex:
        flat = torch.view_as_complex(flat)
    if flat.dtype != dtype:
        raise BadFrame("a tensor of another type than it claims")
    if strided:
        made = flat.as_strided(shape, meta["stride"]) if flat.numel() else flat.reshape(shape)
        return made.requires_grad_(meta["grad"])
    count = 1
    for n in shape:
        count *= n
    if count != flat.numel():
        raise BadFrame("a tensor with fewer numbers than it claims")
    return flat.reshape(shape)


class _Decoder:
    """Makes the values of one message. In a reply each tensor is used once, and everything is counted."""

    def __init__(self, tensors: list[torch.Tensor], strided: bool):
        numbered = dict(enumerate(tensors))
        self._tensor = numbered.__getitem__ if strided else numbered.pop
        self._left = float("inf") if strided else _MOST_THINGS
        self._kinds: dict[str, Opaque] = {}

    def value(self, said: Any, depth: int) -> Any:
        self._left -= 1
        if depth > _DEEP + 2 or self._left < 0:
            raise BadFrame("a value with too many levels" if self._left >= 0 else "a value with too many parts")
        if not isinstance(said, dict):
            if isinstance(said, list):
                raise BadFrame("a bare list")
            return self._opaque("int") if type(said) is int and abs(said) > _MOST_WHOLE else said
        ((tag, content),) = said.items()
        if tag in ("list", "tuple"):
            items = [self.value(item, depth + 1) for item in content]
            return tuple(items) if tag == "tuple" else items
        if tag == "dict":
            return {_key(self.value(k, depth + 1)): self.value(v, depth + 1) for k, v in content}
        if tag == "tensor":
            return self._tensor(content)
        if tag == "complex":
            return complex(*map(float, content))
        if tag == "dtype":
            return _DTYPES[content]
        if tag == "opaque":
            return self._opaque(content)
        raise BadFrame("a value of a kind that no message has")

    def _opaque(self, kind: str) -> Opaque:
        if kind not in self._kinds:
            if len(self._kinds) == _MOST_KINDS:
                raise BadFrame("a value of too many kinds")
            self._kinds[kind] = opaque(kind)
        return self._kinds[kind]


def _key(key: Any) -> Any:
    if not (key is None or isinstance(key, (str, int, float, bool, tuple))):
        raise BadFrame("a dict with a key that no message has")
    return key


class Channel:
    """Frames over two pipes. `inputs` names the end ("in", "out") at which inputs pass, with their strides.

    With `deadlines` this is the only reader and writer at its ends, and each call needs a number of seconds. Without,
    calls wait, and no byte is read too many: in the sandbox several processes read from one pipe in turn.
    """

    def __init__(self, incoming: int, outgoing: int, *, inputs: str = "", deadlines: bool = True):
        self.incoming, self.outgoing, self.deadlines = incoming, outgoing, deadlines
        self.strided_in, self.strided_out = inputs == "in", inputs == "out"
        self._buffer = bytearray()
        for number in (incoming, outgoing) if deadlines else ():
            if number >= 0:
                os.set_blocking(number, False)

    def send(self, message: dict[str, Any], seconds: float | None = None) -> None:
        """Write a frame. Raises Late, Closed, BadFrame (too large)."""
        rest, end = memoryview(pack(message, strided=self.strided_out)), _end(seconds, time.monotonic)
        while rest:
            try:
                rest = rest[os.write(self.outgoing, rest) :]
            except BlockingIOError:
                _wait([], [self.outgoing], end)
            except OSError:
                raise Closed("ended the sandbox, or closed its connection") from None

    def receive(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
        """Read a frame. Raises Late, Closed, BadFrame. The seconds are those of `clock`."""
        end = _end(seconds, clock)
        magic, header, body = _HEAD.unpack(self._exactly(_HEAD.size, end))
        if magic != MAGIC:
            raise BadFrame("something that is no message")
        if header > MOST_HEADER or body > MOST_BODY:
            raise BadFrame(f"a message of {header + body:,} bytes, which is too large")
        return unpack(self._exactly(header, end), self._exactly(body, end), strided=self.strided_in)

    def _exactly(self, count: int, end: _End | None) -> bytes:
        while len(self._buffer) < count:
            if self.deadlines:
                _wait([self.incoming], [], end)
            part = os.read(self.incoming, 2**16 if self.deadlines else min(count - len(self._buffer), 2**20))
            if not part:
                raise Closed("ended the sandbox, or closed its connection")
            self._buffer += part
        content = bytes(self._buffer[:count])
        del self._buffer[:count]
        return content


_End = tuple[float, Callable[[], float]]  # a time, and the clock that it is of


def _end(seconds: float | None, clock: Callable[[], float]) -> _End | None:
    return None if seconds is None else (clock() + seconds, clock)


def _wait(reading: list[int], writing: list[int], end: _End | None) -> None:
    ready = False
    while not ready:
        left = end[0] - end[1]() if end is not None else 0
        if left <= 0:
            raise Late("no answer before the deadline")
        ready = any(select.select(reading, writing, [], left))

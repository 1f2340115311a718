"""The frames between grader and sandbox, the probes that are sent, and every solution of the course run in there."""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import json
import os
import socket
import struct
import threading

import pytest
import torch
from safetensors.torch import load

from autograde.authoring.build import sources
from autograde.authoring.scopes import used_and_defined
from autograde.classroom.inside import frames
from autograde.classroom.inside.frames import BadFrame, Channel, Closed, Late, pack, unpack
from autograde.classroom.inside.worker import message
from autograde.classroom.sandbox import seccomp
from autograde.classroom.sandbox.session import probe_source
from autograde.classroom.submission import outline
from autograde.classroom.task import Task, seeds_of
from autograde.classroom.trusted import grade_student
from autograde.exercise import Case, Exercise
from autograde.exercises import find, names
from autograde.judging.calls import run_once
from autograde.judging.comparing import compare, describe

VALUES = [
    None, True, 3, -2.5, float("inf"), "text", 1 + 2j, torch.float16, [1, (2, [3.0])], {"a": 1, 2: (None,)},
    torch.arange(6).reshape(2, 3), torch.tensor(2.0), torch.zeros(0, 4), torch.tensor([True, False]),
    torch.ones(2, dtype=torch.bfloat16), torch.tensor([1 + 1j]), torch.eye(2, 3, dtype=torch.float64) / 3,
]  # fmt: skip


def there_and_back(message: dict, **options) -> dict:
    data = pack(message, **options)
    _, header, body = struct.unpack(">4sII", data[:12])
    return unpack(data[12 : 12 + header], data[12 + header :], **options) if len(data) == 12 + header + body else {}


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_plain_values_travel(value, strided):
    got = there_and_back({"value": value}, strided=strided)["value"]
    assert type(got) is type(value) and compare(value, got) is None
    assert getattr(got, "dtype", None) == getattr(value, "dtype", None)


def test_inputs_keep_strides_and_identity_and_replies_have_none():
    wide, row = torch.arange(12.0).reshape(3, 4).T, torch.ones(1, 3).expand(5, 3)
    got = there_and_back({"a": [wide, row, wide]}, strided=True)["a"]
    assert got[0].stride() == wide.stride() and torch.equal(got[0], wide) and got[2] is got[0]
    assert got[1].stride() == (0, 1) and torch.equal(got[1], row)
    assert there_and_back({"a": wide})["a"].is_contiguous()


def test_what_is_not_plain_becomes_a_name():
    class Thing:
        pass

    got = there_and_back({"value": [Thing(), b"bytes", 10**30]})["value"]
    assert "Thing" in describe(got[0]) and describe(got[1]) == "an object of type bytes"
    assert describe(got[2]) == "an object of type int"


def frame(content, meta=(), body=b"") -> bytes:
    header = json.dumps({"content": content, "meta": list(meta)}).encode()
    return struct.pack(">4sII", b"AG1\n", len(header), len(body)) + header + body


SMALL = pack({"a": torch.ones(2)})
BODY = SMALL[12 + struct.unpack(">4sII", SMALL[:12])[1] :]
ONE = {"dict": [["a", {"tensor": 0}]]}
BAD = {
    "no magic": b"GET / HTTP/1.1\r\n\r\n",
    "long header": struct.pack(">4sII", b"AG1\n", 2**31, 0),
    "long body": struct.pack(">4sII", b"AG1\n", 2, 2**31),
    "no json": struct.pack(">4sII", b"AG1\n", 2, 0) + b"xx",
    "deep json": struct.pack(">4sII", b"AG1\n", 10**6, 0) + b"[" * 10**6,
    "no record": frame([]),
    "a number": frame(3),
    "unknown tag": frame({"dict": [["a", {"pickle": "gASV"}]]}),
    "unhashable key": frame({"dict": [[{"list": []}, 1]]}),
    "no such tensor": frame(ONE),
    "negative shape": frame(ONE, [{"shape": [-1, -2], "dtype": "float32"}], BODY),
    "gigantic shape": frame(ONE, [{"shape": [2**20, 2**20], "dtype": "float32"}], BODY),
    "overflowing shape": frame(ONE, [{"shape": [2**30] * 16, "dtype": "float32"}], BODY),
    "strides": frame(ONE, [{"shape": [2**20], "stride": [0], "dtype": "float32", "grad": False}], BODY),
    "another dtype": frame(ONE, [{"shape": [2], "dtype": "int64"}], BODY),
    "no dtype": frame(ONE, [{"shape": [2], "dtype": "object"}], BODY),
    "broken tensors": frame(ONE, [{"shape": [2], "dtype": "float32"}], BODY[:-3]),
    "a tensor twice": frame(
        {"dict": [["a", {"tensor": 0}], ["b", {"tensor": 0}]]}, [{"shape": [2], "dtype": "float32"}], BODY
    ),
    "many things": frame({"dict": [["a", {"list": [1] * 400_000}]]}),
    "many kinds": frame({"dict": [["a", {"list": [{"opaque": f"k{i}"} for i in range(200)]}]]}),
    "more tensors": frame(ONE, [{"shape": [2], "dtype": "float32"}] * 2, BODY),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_sandbox_would_say_is_refused(name):
    mine, theirs = os.pipe()
    os.set_blocking(theirs, False)
    channel = Channel(mine, -1)
    writer = threading.Thread(target=written, args=(theirs, BAD[name]))
    writer.start()
    with pytest.raises((BadFrame, Closed)):
        channel.receive(5)
    os.close(mine)
    writer.join()


def written(pipe: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def test_a_reply_may_hold_one_tensor_twice_and_sends_it_twice():
    one = torch.ones(3)
    got = there_and_back({"a": [one, one]})["a"]
    assert torch.equal(got[0], one) and torch.equal(got[1], one) and got[0] is not got[1]
    with pytest.raises(BadFrame, match="too large"):
        pack({"a": [torch.zeros(frames.MOST_BODY // 8 + 1)] * 2})


@pytest.mark.parametrize("dtype", frames._DTYPES.values(), ids=str)
def test_what_is_stored_is_what_safetensors_reads(dtype):
    made = torch.arange(-3, 12).reshape(5, 3).to(dtype)
    # Of one number, or of none, a stride means nothing, and may be any: that of the last token of a single text, say.
    for one in (made, made.T, made[:0], made[2, 1], made[:1, 0], made[:1, ::3], made[:0, 0], made[:1].expand(4, 3)):
        assert torch.equal(there_and_back({"a": one})["a"], one)
        strided = there_and_back({"a": one}, strided=True)["a"]
        assert torch.equal(strided, one) and (strided.stride() == one.stride() or not one.numel())
        flat = (torch.view_as_real(one) if dtype.is_complex else one).reshape(-1)
        assert torch.equal(load(frames._stored({"a": flat, "b": flat}))["b"], flat)


@pytest.mark.parametrize("solution", [lambda x: x[:, -1], lambda x: x[0, ::3], lambda x: x[:0, 1]])
def test_a_result_of_one_number_comes_out_however_it_was_cut(solution):
    given = torch.tensor([[1.0, 2.0, 3.0]])
    outcome = run_once(solution, Exercise("last", 1, tuple), Case((given,)))
    assert torch.equal(there_and_back(message(outcome))["value"], solution(given))


def test_a_dtype_that_no_frame_has_is_not_sent():
    with pytest.raises(KeyError):
        pack({"a": torch.zeros(3, dtype=torch.uint16)})


def test_half_a_message_and_silence_end_at_the_deadline():
    mine, theirs = os.pipe()
    os.write(theirs, SMALL[:-4])
    with pytest.raises(Late):
        Channel(mine, -1).receive(0.2)
    ticks = iter([0.0, 0.1, 0.15, 0.3])
    with pytest.raises(Late):  # time passes as the clock has it
        Channel(mine, -1).receive(0.2, lambda: next(ticks))
    assert list(ticks) == []
    os.close(mine)
    with pytest.raises(Closed):
        Channel(-1, theirs).send({"a": 1}, 1)
    os.close(theirs)


def test_a_message_over_the_caps_is_not_made():
    with pytest.raises(BadFrame, match="too large"):
        pack({"a": torch.zeros(frames.MOST_BODY // 4 + 1)})
    with pytest.raises(BadFrame, match="too many levels"):
        value: list = []
        for _ in range(100):
            value = [value]
        pack({"a": value})


def filtered(program: bytes, number: int, argument=0, third=0, *, architecture: int = 0xC000003E) -> int:
    """What Linux answers to a system call: seccomp(2)'s classic BPF, as far as the filter needs it."""
    data = {0: number, 4: architecture, 16: argument, 32: third}
    at = held = 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        if code == 0x06:
            return k
        if code == 0x20:
            held, jump = data[k], 0
        else:
            jump = yes if {0x15: held == k, 0x35: held >= k, 0x45: bool(held & k)}[code] else no
        at += 1 + jump


ALLOWED, EPERM, ENOSYS, NO_FAMILY = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x50000 | 97


@pytest.fixture(params=[("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)], ids=lambda row: row[0])
def call(request, monkeypatch):
    """Asks the filter of a processor, whichever this machine has."""
    name, architecture, column = request.param
    monkeypatch.setattr("platform.machine", lambda: name)
    program = seccomp.program()
    ask = functools.partial(filtered, program, architecture=architecture)
    return lambda numbers, *args: ask(numbers[column] if isinstance(numbers, tuple) else numbers, *args)


def test_the_filter_refuses_what_it_lists_and_nothing_else(call):
    assert {name for name, numbers in seccomp._REFUSED.items() if call(numbers) != EPERM} == set()
    listed = {*seccomp._REFUSED.values(), seccomp._SOCKET, seccomp._SOCKETPAIR}
    listed = {number for numbers in listed for number in numbers} | {435}
    assert {call(number) for number in range(460) if number not in listed} == {ALLOWED}
    assert call(435) == ENOSYS and call(0x40000000) == EPERM
    assert call(seccomp._CLONE, 0x10000000) == EPERM and call(seccomp._CLONE, 0x11) == ALLOWED


def test_of_another_architecture_everything_is_refused():
    program = seccomp.program()
    assert program is None or filtered(program, 0, architecture=0x40000003) == EPERM


@pytest.mark.parametrize("which", [seccomp._SOCKET, seccomp._SOCKETPAIR])
def test_sockets_are_of_the_families_that_are_listed(call, which):
    for protocol, more in ((0, {socket.AF_NETLINK}), (12, set())):  # of netlink's protocols only the first, routes
        allowed = {family for family in range(64) if call(which, family, protocol) == ALLOWED}
        assert allowed == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, *more}
    assert call(which, socket.AF_PACKET) == NO_FAMILY


PROBED = [name for name in names() if find(name).probe]


@pytest.mark.parametrize("name", PROBED)
def test_a_probe_stands_alone(name):
    called, source = probe_source(find(name))
    used, defined = used_and_defined(source)
    assert called in defined and used <= set(dir(builtins))


@pytest.mark.slow
@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("section", ["01_transformer", "02_applications", "03_data_parallel"])
def test_every_solution_of_the_course_earns_all_points_in_the_sandbox(section):
    found = {path.split("/")[1]: nb for path, nb in sources().items() if path.startswith(section)}
    outlines = tuple(outline(name, nb.cells) for name, nb in found.items())
    contents = {name: json.dumps(nb).encode() for name, nb in found.items()}
    seeds = seeds_of(b"secret", "ada", [e for of in outlines for e in of.points])
    result = grade_student(Task("ada", section, dict.fromkeys(found, ""), outlines, contents, {}, seeds))
    for name, notebook in result["notebooks"].items():
        assert notebook["cells"] == [] and notebook["problem"] == ""
        for each in notebook["exercises"]:
            assert each["report"]["earned"] == each["report"]["points"], (name, each)
    assert {e["report"]["exercise"] for n in result["notebooks"].values() for e in n["exercises"]} == set(seeds)

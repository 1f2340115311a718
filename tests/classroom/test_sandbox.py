"""The frames between grader and sandbox, the probes that are sent, and every solution of the course run in there."""

from __future__ import annotations

import builtins
import json
import os
import struct

import pytest
import torch

from autograde.authoring.build import sources
from autograde.authoring.scopes import used_and_defined
from autograde.classroom.inside import frames
from autograde.classroom.inside.frames import BadFrame, Channel, Closed, Late, pack, unpack
from autograde.classroom.sandbox import seccomp
from autograde.classroom.sandbox.session import probe_source
from autograde.classroom.submission import outline
from autograde.classroom.task import Task, seeds_of
from autograde.classroom.trusted import grade_student
from autograde.exercises import find, names
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
    "more tensors": frame(ONE, [{"shape": [2], "dtype": "float32"}] * 2, BODY),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_sandbox_would_say_is_refused(name):
    mine, theirs = os.pipe()
    os.set_blocking(theirs, False)
    data = memoryview(BAD[name])
    channel = Channel(mine, -1)
    os.write(theirs, data[:60_000])
    os.close(theirs)
    with pytest.raises((BadFrame, Closed)):
        channel.receive(5)
    os.close(mine)


def test_half_a_message_and_silence_end_at_the_deadline():
    mine, theirs = os.pipe()
    os.write(theirs, SMALL[:-4])
    with pytest.raises(Late):
        Channel(mine, -1).receive(0.2)
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


def test_the_filter_has_one_line_for_each_call_it_refuses():
    program = seccomp.program()
    assert program is None or len(program) == 8 * (11 + len(seccomp._REFUSED))


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

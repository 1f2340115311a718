"""Submissions with bad intentions: none gains a point, learns anything or harms anybody; each row says what it did.

The learners' cells are in hostile/, one file each, with what they do and what the row says in their first lines.
Their functions give zeros, which is worth nothing by itself.
"""

from __future__ import annotations

import html
import json
import os
import re
import socket
import threading
import zipfile
from pathlib import Path

import psutil
import pytest
from class_of_one import (
    CHAPTER,
    MASK,
    OTHER,
    POINTS,
    SECTION,
    SOLVED,
    Notebook,
    graded,
    hand_in,
    honest,
    in_gradebook,
    make,
)

from autograde.classroom.collect import collect
from autograde.classroom.journal import exercises_of, summary_of
from autograde.classroom.reports.classreport import class_page
from autograde.classroom.reports.export import gradescope
from autograde.classroom.reports.pages import write_feedback
from autograde.classroom.scores import standings
from autograde.classroom.submission import cells_of, take
from autograde.repository import ROOT

pytestmark = pytest.mark.slow
FILES = sorted((Path(__file__).parent / "hostile").glob("*.py"))
HONEST = ["aaa-first", "mmm-in-the-middle", "zzz-last"]
FULL = sum(POINTS.values())
SECRETS = {"env": "SECRET-ENV-7351", "course": "SECRET-COURSE-8264", "neighbor": "SECRET-NEIGHBOR-1597"}


def retag(nb: Notebook) -> None:
    for cell in nb.cells:
        cell.metadata.tags = ["skip-execution", "demo"]


def edit_points(nb: Notebook) -> None:
    check = nb.cell("check_softmax")
    check.source = "2.0"
    check.metadata.nbgrader.update(points=1000, solution=True, grade=False, locked=False)


def own_output(nb: Notebook) -> None:
    nb.cell("check_softmax").outputs = [
        {"output_type": "execute_result", "data": {"text/plain": "2.0"}, "metadata": {}, "execution_count": 1}
    ]


def delete_all(nb: Notebook) -> None:
    nb.nb.cells = [nb.cell("softmax")]


def reorder(nb: Notebook) -> None:
    nb.nb.cells = nb.cells[::-1]


def duplicate(nb: Notebook) -> None:
    nb.nb.cells = nb.cells + [nb.copy(cell) for cell in nb.cells]


# What is done to a notebook: none of it is worth or costs a point.
CHANGES = {"points": edit_points, "output": own_output, "skip-execution": retag, "duplicated": duplicate}
CHANGES |= {"reordered": reorder, "deleted": delete_all}
STUB = "def softmax(x):\n    raise NotImplementedError"


BAD = ["cut-off", "not-json", "a-list", "nested", "old-format", "new-format", "latin-1", "huge", "empty", "much-code"]


def bad_files(course) -> dict[str, tuple[bytes, str]]:
    """name -> (a notebook's bytes, what the row says)."""
    good = Notebook(course).answer("softmax", SOLVED).text()
    older = json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": []}]})
    return {
        "cut-off": (good[: len(good) // 2].encode(), "not valid JSON"),
        "not-json": (b"print('hello')", "not valid JSON"),
        "a-list": (b"[1, 2]", "no notebook"),
        "nested": (b"[" * 200_000, "not valid JSON"),
        "old-format": (older.encode(), "old format 3"),
        "new-format": (good.replace('"nbformat": 4', '"nbformat": 5').encode(), "another format than 4"),
        "latin-1": ('"größer"'.encode("latin-1"), "not UTF-8"),
        "huge": (b'{"cells": [' + b" " * 100_000_000, "105 MB|100 MB"),
        "empty": (b"", "is empty"),
        "much-code": (Notebook(course).answer("softmax", "x = 1\n" * 300_000).text().encode(), "characters of code"),
    }


def header(path: Path, what: str) -> str:
    return re.search(rf"^# {what}: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, sandbox):
    """The course after a whole class of hostile and honest learners was graded, and what was seen meanwhile."""
    folder = tmp_path_factory.mktemp("hostile")
    course = make(folder)
    listener = Listener()
    os.environ["AUTOGRADE_TEST_SECRET"] = SECRETS["env"]
    (course.root / "secret").write_text(SECRETS["course"])
    for student in HONEST:
        honest(course, student)
    hand_in(course, HONEST[0], Notebook(course).answer("softmax", f"{SOLVED}\n# {SECRETS['neighbor']}").text())
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace("@PORT@", str(listener.port))
        text = text.replace("@COURSE@", str(course.root)).replace("@ROOT@", str(ROOT))
        hand_in(course, f"h-{path.stem}", Notebook(course).answer("softmax", text).text())
    crash = (Path(__file__).parent / "hostile/crash.py").read_text(encoding="utf-8")
    hand_in(course, "x-crash", Notebook(course).answer("softmax", crash).text())
    hand_in(course, "x-crash", Notebook(course, OTHER).answer("causal_mask", MASK).text(), OTHER)
    for student, text in (("s-changed", SOLVED), ("u-changed", STUB)):
        notebook = Notebook(course).answer("softmax", text)
        for change in CHANGES.values():
            change(notebook)
        hand_in(course, student, notebook.text())
    for name, (content, _) in bad_files(course).items():
        hand_in(course, f"b-{name}", content)
    link_and_pipe(course)
    before = {p.name: p.read_bytes() for p in course.root.glob("s*cret")}
    results, printed = graded(course)
    del os.environ["AUTOGRADE_TEST_SECRET"]
    listener.close()
    assert {p.name: p.read_bytes() for p in course.root.glob("s*cret")} == before
    return course, results, printed, listener


def link_and_pipe(course) -> None:
    for name in ("l-link", "l-pipe", "l-folder"):
        (course.root / "submitted" / name / SECTION).mkdir(parents=True)
    (course.root / "submitted/l-link" / SECTION / f"{CHAPTER}.ipynb").symlink_to(course.root / "secret")
    os.mkfifo(course.root / "submitted/l-pipe" / SECTION / f"{CHAPTER}.ipynb")
    (course.root / "submitted/l-folder" / SECTION / f"{CHAPTER}.ipynb").mkdir()
    (course.root / "submitted" / "l-whole").symlink_to(course.root / "submitted" / HONEST[0])
    (course.root / "submitted" / "bad name;rm -rf <b>" / SECTION).mkdir(parents=True)


class Listener:
    """A server that counts who calls."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.calls = self.server.getsockname()[1], 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while True:
            try:
                self.server.accept()
            except OSError:
                return
            self.calls += 1

    def close(self) -> None:
        self.server.close()


def points(result: dict) -> dict[str, float]:
    return {e["report"]["exercise"]: e["report"]["earned"] for e in exercises_of(result)}


def last_error(result: dict) -> str:
    return result["notebooks"][CHAPTER]["cells"][0]["happened"].splitlines()[-1]


def happened(result: dict) -> list[str]:
    """What the result tells of the hostile notebook: of cells, then of calls."""
    notebook = result["notebooks"][CHAPTER]
    told = [cell["happened"] for cell in notebook["cells"]] + [e["happened"] for e in notebook["exercises"]]
    return [text for text in told if text]


def row(printed: str, student: str) -> str:
    return next(line for line in printed.splitlines() if f" {student}: " in line)


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_hostile_cell_gains_nothing_and_its_row_says_what_it_did(classroom, name):
    course, results, printed, _ = classroom
    assert points(results[f"h-{name}"]) == dict.fromkeys(POINTS, 0.0)
    says = header(next(p for p in FILES if p.stem == name), "says")
    told = happened(results[f"h-{name}"])
    assert any(part in text for text in told for part in says.split("|")), told
    assert told[0].splitlines()[-1][:40] in row(printed, f"h-{name}"), "the row that a teacher sees says it as well"


@pytest.mark.parametrize("student", HONEST)
def test_nobody_else_is_harmed(classroom, student):
    _, results, printed, _ = classroom
    assert points(results[student]) == POINTS, row(printed, student)


def test_a_crash_costs_one_notebook(classroom):
    assert points(classroom[1]["x-crash"]) == {"softmax": 0.0, "causal_mask": 2.0}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("text", ["def softmax(x):\n    pass", SOLVED], ids=["unsolved", "solved"])
def test_only_the_text_of_solutions_is_taken(classroom, name, text):
    of = classroom[0].outlines(SECTION, CHAPTER)[0]
    notebook = Notebook(classroom[0]).answer("softmax", text)
    CHANGES[name](notebook)
    taken = take(cells_of(notebook.text().encode()), of)
    steps = [("setup", "import torch\nfrom autograde import check"), ("exercise", text), ("check", "")]
    assert [(step.kind, step.source) for step in taken.steps] == steps


def test_all_of_that_together_changes_no_score(classroom):
    assert points(classroom[1]["s-changed"])["softmax"] == 2.0
    assert points(classroom[1]["u-changed"])["softmax"] == 0.0


@pytest.mark.parametrize("name", BAD)
def test_an_unreadable_notebook_is_a_sentence(classroom, name):
    course, results, _, _ = classroom
    result = results[f"b-{name}"]
    assert points(result)["softmax"] == 0
    assert re.search(bad_files(course)[name][1], result["notebooks"][CHAPTER]["problem"])


def test_links_pipes_and_odd_names_are_not_followed(classroom):
    _, results, printed, _ = classroom
    assert "links are not followed" in results["l-link"]["notebooks"][CHAPTER]["problem"]
    assert results["l-pipe"]["notebooks"][CHAPTER]["problem"] == "It is not a file."
    assert results["l-folder"]["notebooks"][CHAPTER]["problem"] == "It is not a file."
    assert "l-whole" not in results and "'l-whole' is left out" in printed
    assert "rm -rf" not in str(list(results)) and "that can't be a student's name" in printed


def test_the_gradebook_says_the_same(classroom):
    course, results, _, _ = classroom
    booked = in_gradebook(course)
    assert booked == {student: points(result) for student, result in results.items()}
    assert sum(sum(scores.values()) for scores in booked.values()) == len(HONEST) * FULL + 4.0


def test_nothing_was_learned(classroom):
    course, results, printed, listener = classroom
    everything = printed + json.dumps(results)
    assert "\x1b" not in printed, "a terminal would obey"
    for secret in (SECRETS["env"], SECRETS["course"]):
        assert secret not in everything
    assert SECRETS["neighbor"] not in json.dumps({s: r for s, r in results.items() if s != HONEST[0]})
    told = json.dumps(results["h-reading"]["notebooks"][CHAPTER]["cells"])
    assert "learner" in told, "what it found came through"
    for place in (str(course.root), str(ROOT), "/etc/shadow", "/root", "/home"):
        assert f"{place} True" not in told
    assert ".ipynb" not in told and "can be imported" not in told and "gradebook.db" not in told
    calls, writes, powers = (last_error(results[f"h-{name}"]) for name in ("network", "writing", "privileges"))
    assert listener.calls == 0 and "reached" not in calls and "Error" in calls
    assert "wrote" not in writes and "Error" in writes and not (course.root / "hacked").exists()
    assert "worked" not in powers and "uid True" in powers
    assert set(last_error(results["h-socket_families"]).partition("families ")[2].split()) <= {"1", "2", "10", "16"}


def test_hidden_inputs_don_t_come_back(classroom):
    course, results, _, _ = classroom
    write_feedback(course, SECTION, {"h-leaked_inputs": results["h-leaked_inputs"]})
    its = standings(course, SECTION, results)["h-leaked_inputs"]
    page = (course.root / "feedback/h-leaked_inputs" / SECTION / f"{CHAPTER}.html").read_text()
    assert "LEAK" not in page and "softmax" in page and "a call raised an error" in page
    assert "LEAK" in json.dumps(results["h-leaked_inputs"]), "teachers read it, and the search would find it"
    assert "LEAK" not in json.dumps(gradescope(results["h-leaked_inputs"], its))
    for path in (course.root / "autograded").rglob(f"{CHAPTER}.ipynb"):
        outputs = [cell.get("outputs", []) for cell in json.loads(path.read_text())["cells"]]
        assert "LEAK" not in json.dumps(outputs), "nbgrader makes its feedback of it"


def test_what_only_the_text_shows_is_told_to_teachers_and_costs_nothing(classroom):
    course, results, _, _ = classroom
    notebook = results["h-unwatched"]["notebooks"][CHAPTER]
    told = notebook["suspicions"]
    assert any("`subprocess`" in text for text in told) and any(
        "`softmax`, which is forbidden" in text for text in told
    )
    assert told[0] in summary_of({"notebooks": {CHAPTER: notebook}})
    write_feedback(course, SECTION, {"h-unwatched": results["h-unwatched"]})
    assert "subprocess" not in (course.root / "feedback/h-unwatched" / SECTION / f"{CHAPTER}.html").read_text()


def test_no_markup_of_a_learner_reaches_a_page(classroom):
    course, results, _, _ = classroom
    write_feedback(course, SECTION, results)
    pages = [p.read_text(encoding="utf-8") for p in (course.root / "feedback").rglob("*.html")]
    pages.append(class_page(SECTION, results, standings(course, SECTION, results)))
    for text in pages:
        assert "<script" not in text and "<img src=x" not in text
    assert any("&lt;script&gt;stolen(6)" in text for text in pages), "the search would find it"
    assert "stolen(6)" in html.unescape(pages[-1])


def test_nothing_is_left_running(classroom):
    found = {p.pid: " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])}
    ours = {pid for pid, command in found.items() if re.search(r"autograde\.classroom\.(worker|zygote)", command)}
    orphans = [pid for pid in ours if psutil.pid_exists(pid) and psutil.Process(pid).ppid() in (0, 1)]
    assert not orphans, "sandboxes whose grader is gone"


BOMB = 200 * 2**20


def archive(path: Path, members: dict[str, bytes], links: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
        for name in links:
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o120777 << 16
            file.writestr(member, "/etc/passwd")
    return path


def test_an_archive_with_bad_intentions_is_collected_safely(classroom, tmp_path):
    course = classroom[0]
    good = Notebook(course).answer("softmax", SOLVED).text().encode()
    inner = archive(tmp_path / "inner.zip", {f"{CHAPTER}.ipynb": good}).read_bytes()
    bomb = archive(tmp_path / "bomb.zip", {f"{CHAPTER}.ipynb": b"0" * BOMB}).read_bytes()
    assert len(bomb) < 10**6
    members = {
        f"z-good/{CHAPTER}.ipynb": good,
        "z-zip.zip": inner,
        f"z-bomb/{CHAPTER}.ipynb": b"0" * BOMB,
        "z-inner-bomb.zip": bomb,
        f"../../z-up/{CHAPTER}.ipynb": good,
        f"/z-absolute/{CHAPTER}.ipynb": good,
        f"z-dots/../../../{CHAPTER}.ipynb": good,
        f"<b>z;rm/{CHAPTER}.ipynb": good,
        "z-good/evil.py": b"x",
        "z-broken.zip": b"PK\x03\x04 nothing",
    }
    found = collect(course, SECTION, archive(tmp_path / "all.zip", members, (f"z-link/{CHAPTER}.ipynb",)))
    assert found.new == ["z-good", "z-zip"]
    assert len(found.left_out) == 9 and len(found.taken) == 2, found.left_out  # one line a file
    assert {p.name for p in (course.root / "submitted").glob("z-*")} == {"z-good", "z-zip"}
    assert not list(course.root.rglob("evil.py"))
    assert not [p for p in course.root.parent.rglob("*") if "z-up" in p.name or "z-absolute" in p.name]

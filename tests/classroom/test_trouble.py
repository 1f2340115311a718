"""A full disk, a read-only folder, an older nbgrader's gradebook: each is one sentence, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from class_of_one import SECTION, graded, honest, make

from autograde import cli
from autograde.classroom import commands
from autograde.classroom.folder import Course
from autograde.classroom.gradebook import Book, opened
from autograde.classroom.sandbox import isolation
from autograde.repository import ROOT

pytestmark = pytest.mark.slow
COMMANDS = {
    "release": ["release", "01"],
    "roster": ["roster", str(ROOT / "docs/sample_roster.csv")],
    "collect": ["collect", "01", "/new"],
    "due": ["due", "01", "2026-11-01T23:59"],
    "points": ["points", "01", "softmax", "3"],
    "feedback": ["feedback", "01"],
    "report": ["report", "01"],
    "export": ["export", "01"],
}
# Copies a course folder to where there is little room, takes the rest of that, and runs commands there.
SCRIPT = """
import contextlib, io, json, pathlib, shutil, sys
from autograde import cli

source, target, fills, commands = *map(pathlib.Path, sys.argv[1:3]), sys.argv[3], json.loads(sys.argv[4])
if fills:
    shutil.copytree(source, target, dirs_exist_ok=True)
    with contextlib.suppress(OSError), open(target / "full", "wb", buffering=0) as file:
        while file.write(b" " * 512):
            pass
told = {}
for name, arguments in commands.items():
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = cli.main([*arguments, "--course", str(target)])
    told[name] = [code, said.getvalue()]
(target / "full").unlink(missing_ok=True) if fills else None
found = {str(p.relative_to(target)): p.read_bytes().hex() for p in target.rglob("*") if p.is_file()}
print(json.dumps([told, found]))
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory, sandbox) -> Course:
    """A course that was graded once, with all its pages."""
    course = make(tmp_path_factory.mktemp("taught"))
    honest(course, "ada")
    graded(course)
    for name in ("roster", "feedback", "report", "export"):
        assert cli.main([*COMMANDS[name], "--course", str(course.root)]) == 0
    return course


@pytest.fixture
def course(taught, tmp_path) -> Course:
    shutil.copytree(taught.root, tmp_path / "class")
    return Course(tmp_path / "class")


def in_a_room(course: Course, tmp_path: Path, *room: str, fills: bool) -> tuple[dict, dict]:
    """(exit code and errors of each command, the files afterwards) where the folder /room is what bwrap makes of it."""
    new = tmp_path / "new" / "bob" / SECTION
    shutil.copytree(course.root / "submitted" / "ada" / SECTION, new)
    kind, program = isolation._probed()
    if kind != "bubblewrap":
        pytest.skip("this needs bubblewrap")
    around = [program, "--dev-bind", "/", "/", "--tmpfs", "/mnt", *room]
    orders = {name: [str(tmp_path / "new") if a == "/new" else a for a in told] for name, told in COMMANDS.items()}
    given = [str(course.root), "/mnt/room", "1" * fills, json.dumps(orders)]
    ran = subprocess.run([*around, sys.executable, "-c", SCRIPT, *given], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "Traceback" not in ran.stderr, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def files_of(course: Course) -> dict[str, str]:
    root = course.root
    return {str(p.relative_to(root)): p.read_bytes().hex() for p in root.rglob("*") if p.is_file()}


def test_on_a_full_disk_every_command_says_one_sentence_and_every_file_stays(course, tmp_path):
    size = 2 * sum(len(content) // 2 for content in files_of(course).values()) + 400_000
    told, found = in_a_room(course, tmp_path, "--size", str(size), "--tmpfs", "/mnt/room", fills=True)
    for name, (code, said) in told.items():
        assert code == 1 and " is full. Make room and run the same command again" in said, (name, said)
        assert len(said.splitlines()) == 1 + (name == "collect") * said.count("left out"), said
    assert {path: found.get(path) for path in files_of(course)} == files_of(course)
    assert found.keys() - files_of(course).keys() == set()


def test_in_a_read_only_folder_every_command_says_one_sentence(course, tmp_path):
    told, found = in_a_room(course, tmp_path, "--ro-bind", str(course.root), "/mnt/room", fills=False)
    for name, (code, said) in told.items():
        assert code == 1 and ("read-only file system" in said or "can't be written" in said), (name, said)
        assert len(said.splitlines()) == 1, said
    assert found == files_of(course)


OLDER = """
    create table older (id varchar(128) primary key not null, name varchar(128) unique not null, duedate timestamp);
    insert into older select id, name, duedate from assignment;
    drop table assignment;
    alter table older rename to assignment;
    drop table course;
    alter table student drop column lms_user_id;
    update alembic_version set version_num = '167914646830';
"""


def test_an_older_nbgraders_gradebook_is_told_and_serves_after_nbgraders_own_upgrade(course, capsys):
    database = sqlite3.connect(course.database)
    database.executescript(OLDER)
    database.close()
    before = hashlib.sha256(course.database.read_bytes()).digest()
    for arguments in [*COMMANDS.values(), ["grade", "01"]]:
        if arguments[0] in ("roster", "collect"):
            continue
        assert cli.main([*arguments, "--course", str(course.root)]) == 1
        said = capsys.readouterr().err
        assert "older nbgrader's. Run `nbgrader db upgrade`" in said and len(said.splitlines()) == 1
    assert hashlib.sha256(course.database.read_bytes()).digest() == before
    command = [str(Path(sys.executable).with_name("nbgrader")), "db", "upgrade"]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(course.root)}
    ran = subprocess.run(command, cwd=course.root, capture_output=True, text=True, env=path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert cli.main(["grade", "01", "--course", str(course.root)]) == 0
    assert "nothing" not in capsys.readouterr().err
    assert cli.main(["export", "01", "--course", str(course.root)]) == 0
    assert "ada,4" in (course.root / "export" / SECTION / "grades.csv").read_text(encoding="utf-8").replace('"', "")


def test_a_release_that_fails_leaves_the_one_before(course, monkeypatch, capsys):
    before = files_of(course)

    class Failing:
        def generate_assignment(self, section, force):
            folder = course.root / "release" / section
            assert not folder.exists()
            folder.mkdir()
            (folder / "half.ipynb").write_text("{}")
            return {"success": False, "log": "OSError: [Errno 28] No space left on device", "error": ""}

    monkeypatch.setattr("autograde.classroom.gradebook.api_of", lambda course: Failing())
    assert cli.main(["release", "01", "--course", str(course.root)]) == 1
    assert "The disk is full. Make room" in capsys.readouterr().err
    assert files_of(course) == before


def test_a_release_that_was_killed_is_put_back_by_the_next(tmp_path):
    (tmp_path / ".01_one-before").mkdir()
    (tmp_path / ".01_one-before" / "whole.ipynb").touch()
    (tmp_path / "01_one").mkdir()
    with pytest.raises(ValueError, match="again"), commands._restored(tmp_path / "01_one"):
        raise ValueError("again")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.ipynb")] == ["01_one/whole.ipynb"]


def test_points_by_hand_of_a_dropped_question_outlive_a_gradebook_that_fails(course, monkeypatch):
    with opened(course) as gradebook:
        grade = next(g for n in gradebook.find_submission(SECTION, "ada").notebooks for g in n.grades)
        grade.manual_score = 1.25
        gradebook.db.commit()
        exercise = grade.name.removeprefix("check_")
    with opened(course) as gradebook:
        Book(gradebook, course, SECTION).set_points(exercise, 0, {})
    with opened(course) as gradebook:
        book = Book(gradebook, course, SECTION)
        monkeypatch.setattr(gradebook.db, "commit", lambda: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            book.set_points(exercise, 2, {})
        gradebook.db.rollback()
    monkeypatch.undo()
    for _ in range(2):
        with opened(course) as gradebook:
            Book(gradebook, course, SECTION).set_points(exercise, 2, {})
            grades = [g for n in gradebook.find_submission(SECTION, "ada").notebooks for g in n.grades]
            assert {g.name: g.manual_score for g in grades}[f"check_{exercise}"] == 1.25

"""What platforms hand out, as real classes have it: nothing is dropped in silence, and everybody is who they are."""

from __future__ import annotations

import datetime
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from class_of_one import CHAPTER, OTHER, SECTION, SOLVED, unreleased

from autograde import cli
from autograde.classroom.collect import Collected, collect
from autograde.classroom.folder import Course
from autograde.classroom.layouts import layout
from autograde.classroom.roster import Roster
from autograde.classroom.source import member_name
from autograde.classroom.submission import MOST_BYTES, Unreadable, is_safe_name, odd_sign, sources_of

PLAIN = f"{CHAPTER}.ipynb"
LONG_AGO = (2026, 11, 1, 10, 0, 0)


@pytest.fixture
def course(tmp_path) -> Course:
    return unreleased(tmp_path)


def notebook(course: Course, name: str = CHAPTER, answer: str = SOLVED, **cells) -> dict:
    """What a learner has: the release with an answer. `cells` are keys for every cell."""
    nb = json.loads((course.root / "source" / SECTION / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            cell["source"] = answer
        cell.update(cells)
    return nb


def archive(path: Path, members: dict[str, object], time: tuple = LONG_AGO) -> Path:
    """A zip file; a notebook is a dict."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            member = zipfile.ZipInfo("x", time)
            member.filename = name  # as it is, with backslashes
            file.writestr(member, json.dumps(content) if isinstance(content, dict) else content)
    return path


def old_archive(path: Path, name: bytes, content: bytes, extra: bytes = b"") -> Path:
    """A zip file with one member whose name is in no known encoding, byte by byte."""
    stored = zlib.crc32(content), len(content), len(content), len(name), len(extra)
    when = 10 << 11, (2026 - 1980) << 9 | 11 << 5 | 1
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, *when, *stored) + name + extra + content
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, *when, *stored, 0, 0, 0, 0, 0) + name + extra
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)
    return path


def students(course: Course) -> set[str]:
    return {path.parent.parent.name for path in course.root.glob(f"submitted/*/{SECTION}/{PLAIN}")}


def stamp(course: Course, student: str) -> str:
    return course.submitted_at(student, SECTION)


def lines(found: Collected) -> list[str]:
    return [*found.taken, *found.left_out]


UTC = datetime.UTC
LOCAL = datetime.datetime(2026, 11, 1, 10).astimezone(UTC)  # in the archive, and in names without a zone
AT_TEN = f"{LOCAL:%Y-%m-%d %H:%M:%S.%f} UTC"
ARCHIVES = {
    "canvas": ({"doejane_12345_678901_hw.ipynb": "doejane", "smithal_LATE_222_333_hw-1.ipynb": "smithal"}, "canvas_id"),
    "moodle": (
        {
            f"Jane Doe_1234_assignsubmission_file_/{PLAIN}": "Jane Doe",
            f"Aoife O'Brien_1235_assignsubmission_file_/{PLAIN}": "Aoife O'Brien",
            f"张伟_1236_assignsubmission_file_/{PLAIN}": "张伟",
            f"Weiß, Łukasz_1237_assignsubmission_file_/{PLAIN}": "Weiß, Łukasz",
            f"Kim (Ann) Lee_1238_assignsubmission_file_{PLAIN}": "Kim (Ann) Lee",
        },
        f"participant:{SECTION}",
    ),
    "blackboard": (
        {
            f"HW2_jdoe_attempt_2026-11-01-10-00-00_{PLAIN}": "jdoe",
            f"HW2_a_smith_attempt_2026-11-01-10-00-00_{PLAIN}": "a_smith",
        },
        "",
    ),
    "sakai": (
        {
            f"HW2/Doe, Jane(jdoe)/Submission attachment(s)/{PLAIN}": "jdoe",
            f"HW2/Smith, Al(asmith)/Submission attachment(s)/{PLAIN}": "asmith",
        },
        "",
    ),
    "brightspace": (
        {
            f"4711-90 - Jane Doe - Nov 1, 2026 1000 AM/{PLAIN}": "Jane Doe",
            f"4712-90 - Al Smith - 1 November, 2026 1000/{PLAIN}": "Al Smith",
        },
        "brightspace_id",
    ),
    "classroom": ({f"HW2/Jane Doe - {PLAIN}": "Jane Doe", f"HW2/Al Smith - Copy of {PLAIN}": "Al Smith"}, ""),
    "exchange": ({f"inbound/jdoe+{SECTION}+2026-11-01 10:00:00.000000 {LOCAL:%Z}+x7/{PLAIN}": "jdoe"}, ""),
    "one_root": ({f"submissions/ada/{PLAIN}": "ada", f"submissions/bob/{PLAIN}": "bob"}, ""),
    "other_root": ({f"HW2/week 3/ada/{PLAIN}": "ada", f"HW2/week 3/bob/{PLAIN}": "bob"}, ""),
    "backslashes": ({f"HW2\\ada\\{PLAIN}": "ada", f"HW2\\bob\\{PLAIN}": "bob"}, ""),
    "one_student": ({f"{SECTION}/ada/{PLAIN}": "ada"}, ""),
    "nbgrader": ({f"submitted/ada/{SECTION}/{PLAIN}": "ada", f"submitted/bob/{SECTION}/old/{PLAIN}": "bob"}, ""),
    "renamed": (
        {
            f"ada/{CHAPTER} (1).ipynb": "ada",
            f"bob/{CHAPTER}-Copy1.ipynb": "bob",
            f"cleo/{PLAIN.upper()}": "cleo",
            "dan/final FINAL.ipynb": "dan",
            f"eve/Copy of {PLAIN}": "eve",
        },
        "",
    ),
}


@pytest.mark.parametrize("platform", ARCHIVES)
def test_an_archive_s_layout_says_whose_each_notebook_is(course, tmp_path, platform):
    members, column = ARCHIVES[platform]
    source = archive(tmp_path / "all.zip", dict.fromkeys(members, notebook(course)))
    found = collect(course, SECTION, source)
    assert students(course) == set(members.values()) == set(found.new)
    assert len(found.taken) == len(members) and not found.left_out
    if platform == "exchange":
        return
    assert {stamp(course, student) for student in students(course)} == {AT_TEN}
    rows = {row["id"]: row for row in Roster(course).rows}
    assert set(rows) == students(course) and all(row.get(column) for row in rows.values() if column)
    assert collect(course, SECTION, source).same == sorted(members.values()), "again, nothing is new"


def test_every_file_ends_in_one_line_and_says_what_to_do(course, tmp_path, capsys):
    for other in ("02_next", "03_empty"):
        (course.root / "source" / other).mkdir()
    next_one = notebook(course, OTHER)  # and in it a function of this section
    (course.root / "source" / SECTION / f"{OTHER}.ipynb").rename(course.root / "source/02_next" / f"{OTHER}.ipynb")
    members = {
        f"ada/{PLAIN}": (notebook(course), "taken"),
        "ada/essay.pdf": (b"", "no notebook"),
        "ada/next.ipynb": (next_one, "collect it with `autograde collect 02_next`"),
        f"fay/{CHAPTER}.html.ipynb": (notebook(course, metadata={}), "taken"),
        "bob/other.ipynb": (notebook(course) | {"cells": []}, f"no exercise of {SECTION}"),
        "bob/broken.ipynb": (b"{", "may have been cut off"),
        f"cleo/{PLAIN}": (b"", "but it can't be read, ask for another copy: The file is empty."),
        f"ada/.ipynb_checkpoints/{PLAIN}": (notebook(course), "Jupyter's own copy"),
        f"__MACOSX/ada/._{PLAIN}": (b"x", "macOS's own notes"),
        PLAIN: (notebook(course), "no folder with a student's name"),
        f"<dan>/{PLAIN}": (notebook(course), "can't hold the sign '<'"),
        "eve.zip": (b"PK nothing", "not a zip file"),
    }
    source = archive(tmp_path / "all.zip", {name: content for name, (content, _) in members.items()})
    assert cli.main(["collect", SECTION, str(source), "--course", str(course.root)]) == 0
    out, err = capsys.readouterr()
    told = [line for line in (out + err).splitlines() if line.startswith(("taken: ", "left out: "))]
    assert len(told) == len(members)
    for name, (_, says) in members.items():
        line = next(line for line in told if f'"{name}"' in line)
        assert says in line, line
    assert students(course) == {"ada", "cleo", "fay"}, (
        "an unreadable notebook of the right name is kept: grading says why"
    )


def test_nothing_taken_is_a_failure(course, tmp_path, capsys):
    source = archive(tmp_path / "all.zip", {"ada/essay.pdf": b""})
    assert cli.main(["collect", SECTION, str(source), "--course", str(course.root)]) == 1
    out, err = capsys.readouterr()
    assert '"ada/essay.pdf": no notebook' in err and "0 files taken, 1 left out" in out


def test_of_two_notebooks_for_one_place_the_newest_is_taken_and_the_other_told(course, tmp_path):
    old, new = notebook(course), notebook(course, answer=f"# mended\n{SOLVED}")
    source = tmp_path / "box"
    for name, nb, time in (("b.ipynb", new, 2e9), ("c.ipynb", old, 1e9)):
        (source / "ada").mkdir(parents=True, exist_ok=True)
        (source / "ada" / name).write_text(json.dumps(nb), encoding="utf-8")
        os.utime(source / "ada" / name, (time, time))
    found = collect(course, SECTION, source)
    assert len(found.taken) == 1 and '"ada/b.ipynb"' in found.taken[0]
    assert found.left_out == [f'"ada/c.ipynb": ada has a newer {CHAPTER}, "ada/b.ipynb" of 18 May 03:33 UTC']
    kept = (course.root / "submitted/ada" / SECTION / PLAIN).read_bytes()
    (source / "ada/b.ipynb").unlink()
    found = collect(course, SECTION, source)
    assert "is newer and was collected before" in found.left_out[0] and not found.new
    assert (course.root / "submitted/ada" / SECTION / PLAIN).read_bytes() == kept


def test_a_submission_s_time_is_its_own(course, tmp_path):
    members = {
        f"jdoe+{SECTION}+2026-10-01 09:30:00.250000 UTC/{PLAIN}": notebook(course),
        f"HW/Smith, Al(asmith)/Submission attachment(s)/{PLAIN}": notebook(course),
        "HW/Smith, Al(asmith)/timestamp.txt": b"20261002120000000",
        f"bob/{SECTION}/{PLAIN}": notebook(course),
        f"bob/{SECTION}/timestamp.txt": b"2026-10-03 08:00:00 UTC\n",
        f"cleo/{PLAIN}": notebook(course),
    }
    found = collect(course, SECTION, archive(tmp_path / "all.zip", members))
    noon = datetime.datetime(2026, 10, 2, 12).astimezone(UTC)
    assert stamp(course, "jdoe") == "2026-10-01 09:30:00.250000 UTC"
    assert stamp(course, "asmith") == f"{noon:%Y-%m-%d %H:%M:%S.%f} UTC"
    assert stamp(course, "bob") == "2026-10-03 08:00:00.000000 UTC" and stamp(course, "cleo") == AT_TEN
    assert [line.rpartition(": ")[2] for line in found.left_out] == ["read as the time of the submission beside it"] * 2
    nothing = archive(tmp_path / "zero.zip", {f"dan/{PLAIN}": notebook(course)}, time=(1980, 1, 1, 0, 0, 0))
    os.utime(nothing, (1.9e9, 1.9e9))
    assert "so that of the archive counts" in collect(course, SECTION, nothing).taken[0]
    assert stamp(course, "dan").startswith("2030-03-17 17:46:40")


def test_a_second_notebook_does_not_make_the_first_one_older(course, tmp_path):
    for number, (name, day) in enumerate(((PLAIN, 5), (f"{OTHER}.ipynb", 3), (f"{OTHER}.ipynb", 9))):
        nb = notebook(course, name.removesuffix(".ipynb"), answer=f"# {day}")
        source = archive(tmp_path / f"{number}.zip", {f"ada/{name}": nb}, time=(2026, 11, day, 10, 0, 0))
        assert collect(course, SECTION, source).new == ["ada"]
        latest = datetime.datetime(2026, 11, max(day, 5), 10).astimezone(UTC)
        assert stamp(course, "ada") == f"{latest:%Y-%m-%d %H:%M:%S.%f} UTC"


def test_canvas_s_word_that_it_is_late_is_told(course, tmp_path):
    source = archive(tmp_path / "all.zip", {"smithal_LATE_222_333_x.ipynb": notebook(course)})
    assert collect(course, SECTION, source).taken[0].endswith("Canvas calls it late")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Müller".encode(), "Müller"),
        ("Müller".encode("cp437"), "Müller"),
        ("Müller".encode("cp1252"), "Müller"),
        ("张伟".encode("gb2312"), "张伟"),
        ("Mu\N{COMBINING DIAERESIS}ller".encode(), "Müller"),
    ],
)
def test_a_member_s_name_in_an_old_encoding_is_understood(course, tmp_path, raw, name):
    content = json.dumps(notebook(course)).encode()
    source = old_archive(tmp_path / "all.zip", raw + b"/" + PLAIN.encode(), content)
    assert collect(course, SECTION, source).new == [name]


def test_an_encoding_is_taken_from_the_teacher_and_from_the_archive(course, tmp_path, capsys):
    content, name = json.dumps(notebook(course)).encode(), f"山田/{PLAIN}"
    source = old_archive(tmp_path / "all.zip", name.encode("cp932"), content)
    arguments = ["collect", SECTION, str(source), "--course", str(course.root), "--encoding", "cp932"]
    assert cli.main(arguments) == 0 and students(course) == {"山田"}
    field = struct.pack("<HHBL", 0x7075, 5 + len(name.encode()), 1, 0) + name.encode()
    with zipfile.ZipFile(old_archive(tmp_path / "new.zip", b"??/x.ipynb".replace(b"?", b"\xff"), b"", field)) as file:
        assert member_name(file.infolist()[0]) == name


def test_names_are_kept_and_a_sign_that_no_gradebook_holds_is_named():
    for name in ("Aoife O'Brien", "Weiß, Łukasz", "Kim (Ann)", "张伟", "O’Neil Jr.", "x", "a@b.edu", "Tom & Ann"):
        assert is_safe_name(name), name
    for name, says in {
        "a/b": "'/'",
        "<b>": "'<'",
        "a;b": "';'",
        "": "empty",
        "a..b": "two dots",
        "-x": "'-'",
        "x" * 101: "101 signs",
        "x ": "' '",
    }.items():
        assert not is_safe_name(name) and says in odd_sign(name), name


def test_only_sources_count_for_the_limit(course, tmp_path):
    nb = notebook(course)
    code = next(cell for cell in nb["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "display_data", "data": {"image/png": 'A"]}' * 4_000_000}, "metadata": {}}]
    nb["metadata"]["widgets"] = {"state": ["x" * 20]}
    raw = json.dumps(nb).encode()
    assert len(raw) > MOST_BYTES
    code["outputs"], nb["metadata"]["widgets"] = [], {}
    assert json.loads(sources_of(raw)) == nb == json.loads(sources_of(raw.decode().encode("utf-16")))
    assert sources_of(json.dumps(nb).encode()) == json.dumps(nb).encode(), "a small one stays as it is, byte for byte"
    source = archive(tmp_path / "all.zip", {f"ada/{PLAIN}": raw})
    assert collect(course, SECTION, source).new == ["ada"]
    contents, problems = course.submitted("ada", SECTION, [CHAPTER])
    assert not problems and len(contents[CHAPTER]) < 10_000
    code["source"] = "x" * MOST_BYTES
    with pytest.raises(Unreadable, match="without the cells' outputs, and at most"):
        sources_of(json.dumps(nb).encode())


def test_what_is_no_json_costs_no_more_than_its_length():
    for text in (b'\\"' * 6_000_000, b"[" * 12_000_000, b'{"cells": [{"outputs": [' + b"x" * MOST_BYTES):
        with pytest.raises(Unreadable):
            sources_of(text)


CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,HW1 (77)\n    Points Possible,,,,,10\n"
    '"Doe, Jane",12345,S1,jdoe,A,9\n"O\'Brien, Aoife",12346,S2,aobrien,A,8\n"Student, Test",1,,,A,\n'
)
MOODLE = "First name,Surname,ID number,Email address\nJane,Doe,S1,jdoe@x.edu\n伟,张,S3,wei@x.edu\n"
SHEET = "Identifier;Full name;Email address;Status;Grade\nParticipant 1234;Jane Doe;jdoe@x.edu;;\n"
GRADESCOPE = "First Name,Last Name,SID,Email,Role\nJane,Doe,S1,jdoe@x.edu,Student\nDr,Who,S9,who@x.edu,Instructor\n"


def test_the_platforms_own_lists_tie_their_ids_to_one_student(course, tmp_path, capsys):
    for text, options, encoding in (
        (CANVAS, [], "utf-8-sig"),
        (MOODLE, [], "utf-16"),
        (SHEET, ["--section", SECTION], "cp1252"),
        (GRADESCOPE, [], "utf-8"),
    ):
        (tmp_path / "list.csv").write_bytes(text.encode(encoding))
        assert cli.main(["roster", str(tmp_path / "list.csv"), "--course", str(course.root), *options]) == 0
    rows = {row["id"]: row for row in Roster(course).rows}
    assert set(rows) == {"jdoe", "aobrien", "wei"}
    jane = {"name": "Doe, Jane", "email": "jdoe@x.edu", "login": "jdoe", "sid": "S1", "canvas_id": "12345"}
    assert jane.items() <= rows["jdoe"].items() and rows["jdoe"][f"participant:{SECTION}"] == "1234"


@pytest.mark.parametrize("lists", [(CANVAS, SHEET), (SHEET, CANVAS), (GRADESCOPE, SHEET, CANVAS), (SHEET, MOODLE)])
def test_in_any_order_a_student_stays_one(course, lists):
    for text in lists:
        found = roster(course, text)
    assert [row["name"] for row in found.rows if "Jane" in row["name"]] == [
        "Doe, Jane" if lists[-1] != SHEET else "Jane Doe"
    ]
    twins = SHEET.splitlines()[0] + "\nParticipant 5;Jane Doe;other@x.edu;;\n"
    assert len(roster(course, twins).rows) == len(found.rows) + 1, "another e-mail is another student"


def roster(course: Course, text: str = CANVAS) -> Roster:
    found = Roster(course)
    found.read(text.encode())
    found.save()
    return found


@pytest.mark.parametrize(
    "member",
    [
        "doejane_12345_1_x.ipynb",
        "doejane_999_1_x.ipynb",
        f"Jane Doe_7_assignsubmission_file_/{PLAIN}",
        f"HW_1_jdoe_attempt_2026-11-01-10-00-00_{PLAIN}",
        f"all/Doe, Jane/{PLAIN}",
        f"all/S1/{PLAIN}",
        f"JDOE/{PLAIN}",
        f"12-3 - Jane Doe - Nov 1, 2026 1000 AM/{PLAIN}",
    ],
)
def test_the_roster_knows_whose_a_notebook_is(course, tmp_path, member):
    roster(course)
    found = collect(course, SECTION, archive(tmp_path / "all.zip", {member: notebook(course)}))
    assert found.new == (["doejane"] if "999" in member else ["jdoe"]), found
    assert ("not in the roster" in found.taken[0]) == ("999" in member), "another number is another student"


def test_two_of_one_name_are_not_mixed_up(course, tmp_path):
    roster(course, CANVAS + '"Doe, Jane",888,S8,jdoe2,A,9\n')
    source = archive(tmp_path / "all.zip", {f"Jane Doe_7_assignsubmission_file_/{PLAIN}": notebook(course)})
    found = collect(course, SECTION, source)
    assert not found.taken and "2 students that this may be (jdoe, jdoe2)" in found.left_out[0]
    numbers = {"doejane_888_1_x.ipynb": notebook(course), "doejane_12345_1_x.ipynb": notebook(course)}
    assert collect(course, SECTION, archive(tmp_path / "canvas.zip", numbers)).new == ["jdoe", "jdoe2"]


def test_two_of_one_name_are_two_without_a_roster(course, tmp_path):
    numbers = {"doejane_888_1_x.ipynb": notebook(course), "doejane_12345_1_x.ipynb": notebook(course)}
    assert collect(course, SECTION, archive(tmp_path / "canvas.zip", numbers)).new == ["doejane", "doejane-12345"]


def test_folders_that_look_alike_are_two_students(course, tmp_path):
    names = ["Ann", "a-b", "a_b", "ab", "ann"]
    members = {f"{name}/{PLAIN}": notebook(course, answer=f"# {name}") for name in names}
    assert collect(course, SECTION, archive(tmp_path / "all.zip", members)).new == sorted(names)
    first = {f"Jane Doe_7_assignsubmission_file_/{PLAIN}": notebook(course)}
    assert collect(course, SECTION, archive(tmp_path / "one.zip", first)).new == ["Jane Doe"]
    (course.root / "source/02_next").mkdir()
    (course.root / "source" / SECTION / f"{OTHER}.ipynb").rename(course.root / "source/02_next" / f"{OTHER}.ipynb")
    nb = json.loads((course.root / f"source/02_next/{OTHER}.ipynb").read_text(encoding="utf-8"))
    later = {f"Jane Doe_99_assignsubmission_file_/{OTHER}.ipynb": nb}
    assert collect(course, "02_next", archive(tmp_path / "two.zip", later)).new == ["Jane Doe"], "Moodle counts anew"


def test_a_roster_that_comes_later_keeps_the_names_of_the_folders(course, tmp_path):
    members = {f"Jane Doe_7_assignsubmission_file_/{PLAIN}": notebook(course)}
    collect(course, SECTION, archive(tmp_path / "all.zip", members))
    rows = {row["id"]: row for row in roster(course).rows}
    assert set(rows) == {"Jane Doe", "aobrien"} and rows["Jane Doe"]["login"] == "jdoe"


def test_a_list_without_students_and_a_damaged_roster_are_told(course, tmp_path, capsys):
    (tmp_path / "list.csv").write_text("color,shape\nred,round\n")
    assert cli.main(["roster", str(tmp_path / "list.csv"), "--course", str(course.root)]) == 1
    assert "There is no student in it" in capsys.readouterr().err
    (course.root / "roster.csv").write_text("id,name\n../x,Someone\n")
    with pytest.raises(ValueError, match="can't be an id: the gradebook can't hold the sign '/'"):
        Roster(course)


def test_a_known_student_s_folder_is_found_wherever_it_stands():
    paths = [Path("HW2/ada/work/x.ipynb"), Path("HW2/ada/x.ipynb")]
    assert {clue.login for clue in layout(paths, [], ["ada"]).values()} == {"ada"}

"""The roster: who is in the class, and how each platform calls them.

It is `roster.csv` in the course folder: one row a student, with the id that folders and gradebook use, name, e-mail and
the platforms' own ids. Canvas's, Moodle's and Gradescope's own exports are read, or any table with such columns.
What an archive says about a student, `collect` adds.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from autograde.classroom.folder import Course
from autograde.classroom.layouts import Clue
from autograde.classroom.submission import is_safe_name, odd_sign
from autograde.files import replace

FIELDS = ("id", "name", "email", "login", "sid", "canvas_id", "section")
# Columns of the platforms' own exports, in small letters -> what they are here.
_COLUMNS = {
    "id": "canvas_id",
    "sis user id": "sid",
    "sis login id": "login",
    "section": "section",
    "sections": "section",
    "student": "name",
    "name": "name",
    "full name": "name",
    "identifier": "participant",
    "username": "login",
    "login": "login",
    "id number": "sid",
    "sid": "sid",
    "student id": "sid",
    "email": "email",
    "e-mail": "email",
    "email address": "email",
    "first name": "first",
    "last name": "last",
    "surname": "last",
    "canvas_id": "canvas_id",
    "brightspace_id": "brightspace_id",
}
_UNIQUE = ("login", "sid", "email", "canvas_id")
_CALLED = ("id", "login", "email", "sid")
_NUMBERS = ("canvas_id", "participant", "brightspace_id")


class Roster:
    """The students of a course, in order: those of a teacher's lists, and who is known from archives alone."""

    def __init__(self, course: Course):
        """Raises ValueError where roster.csv is damaged."""
        self.path = course.root / "roster.csv"
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            self.rows = [row for row in _table(self.path.read_bytes()) if row.get("id")]
            if bad := [row["id"] for row in self.rows if not is_safe_name(row["id"])]:
                raise ValueError(f"{self.path}: {bad[0]!r} can't be an id: {odd_sign(bad[0])}.")
        self.taken = set(course.folders())

    @property
    def listed(self) -> list[dict[str, str]]:
        """The rows that a teacher's list had."""
        return [row for row in self.rows if row.get("listed")]

    def ids(self) -> list[str]:
        """Every student's id."""
        return [row["id"] for row in self.rows]

    def row(self, student: str) -> dict[str, str]:
        """What is known about a student, at least the id."""
        return next((row for row in self.rows if row["id"] == student), {"id": student})

    def save(self) -> None:
        """Write roster.csv."""
        more = sorted({key for row in self.rows for key in row} - {*FIELDS, "listed"})
        out = io.StringIO()
        writer = csv.DictWriter(out, [*FIELDS, *more, "listed"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        replace(self.path, out.getvalue(), 0o600)

    def read(self, content: bytes, section: str = "") -> tuple[int, int, list[str]]:
        """Take over a platform's table: (new students, others in it, what was left out and why).

        section: whose participants Moodle's table numbers. Raises ValueError where it is no table of students.
        """
        new, left_out, rows = 0, [], [_named(row) for row in _table(content)]
        rows = [row for row in rows if any(row.get(key) for key in ("name", "login", "email", "sid", "id"))]
        if not rows:
            raise ValueError("There is no student in it: a column named Student, Name, Username or Email is needed.")
        there = 0
        for row in rows:
            if row.get("name") in ("Points Possible", "Student, Test", "Test Student") or row.pop("staff", ""):
                continue
            number = row.pop("participant", "")
            if number:
                row[_column("participant", section)] = number
            made = self._merge(row | {"listed": "yes"})
            if made is None:
                left_out.append(self._why_no_id(row))
            else:
                new, there = new + made, there + (not made)
        return new, there, left_out

    def find(self, clue: Clue, section: str) -> tuple[str, str]:
        """(the student that a path names, "") or ("", why there is none); who is unknown is added.

        A platform's number comes first, then login, id, e-mail or number of the student, then the name. Capitals, signs
        and the order of names don't matter for who is in a teacher's list; else folders "ab" and "A-b" are two.
        """
        numbers = {_column(key, section): value for key, value in clue.numbers}
        found = [row for row in self.rows if any(row.get(key) == value for key, value in numbers.items())]
        if not found and clue.login and clue.platform != "Canvas":
            found = [row for row in self.rows if clue.login in [row.get(key) for key in _CALLED]]
            folded = clue.login.casefold()
            found = found or [row for row in self.listed if folded in [row.get(key, "").casefold() for key in _CALLED]]
        if not found and _key(clue.name):
            same = [row for row in self.listed if _key(clue.name) in _keys(row)]
            same = same or [row for row in self.rows if row.get("name") == clue.name]
            found = [row for row in same if not _others(row, numbers)]
        if len(found) > 1:
            called = ", ".join(row["id"] for row in found)
            return "", f"the roster has {len(found)} students that this may be ({called}): say whose it is in a folder"
        if found:
            found[0].update({key: value for key, value in numbers.items() if not found[0].get(key)})
            return found[0]["id"], ""
        name = clue.login or clue.name
        if not is_safe_name(name):
            return "", f"{name!r} can't be a student's id: {odd_sign(name)}; a roster can give another"
        if name in self.ids():
            name = f"{name}-{next(iter(numbers.values()), len(self.rows))}"
        self.rows.append({"id": name, "name": "" if clue.platform == "Canvas" else clue.name} | numbers)
        return name, ""

    def _merge(self, row: dict[str, str]) -> bool | None:
        """Put a row to the student that it is, or make one: whether it is new, or None where no id can be made."""
        unique = ("sid", "canvas_id", *(key for key in row if key.startswith("participant")))
        mine = _mails(row)
        found = [k for k in self.rows if mine & _mails(k) or any(row.get(u) and row[u] == k.get(u) for u in unique)]
        called = {_key(row.get(key, "")) for key in ("login", "email", "sid", "id")} - {""}
        found = found or [known for known in self.rows if _key(known["id"]) in called]
        if not found:  # the name alone, where it is one student's and no number says otherwise
            same = [known for known in self.rows if _keys(row) & _keys(known) - {""}]
            found = [k for k in same if not any(row.get(u) and k.get(u, row[u]) not in ("", row[u]) for u in _UNIQUE)]
            found = found if len(found) == 1 and not _others(found[0], row) else []
        if found:
            found[0].update({key: value for key, value in row.items() if value and key != "id"})
            return False
        local = row.get("email", "").partition("@")[0]
        names = [row.get("id", ""), row.get("login", ""), local, row.get("email", ""), row.get("sid", "")]
        names = [name for name in [*names, row.get("name", "")] if is_safe_name(name) and name not in self.ids()]
        # whoever is in submitted/ or the gradebook under one of these names stays so
        made = next((name for name in names if name in self.taken), names[0] if names else "")
        if not made:
            return None
        self.rows.append(row | {"id": made})
        return True

    def _why_no_id(self, row: Mapping[str, str]) -> str:
        name = row.get("name") or row.get("login") or row.get("email", "")
        return f"{name!r}: {odd_sign(name) if not is_safe_name(name) else 'there is another student of that name'}"


def first_and_last(name: str) -> tuple[str, str]:
    """("Jane", "Doe") of "Doe, Jane" and of "Jane Doe"."""
    last, comma, first = name.partition(",")
    if comma:
        return first.strip(), last.strip()
    first, _, last = name.strip().rpartition(" ")
    return first, last


def participant(row: Mapping[str, str], section: str) -> str:
    """Moodle's number of a student in a section, or an empty text."""
    return row.get(_column("participant", section)) or row.get("participant", "")


def _column(key: str, section: str) -> str:
    """Moodle counts its participants in each assignment anew."""
    return f"{key}:{section}" if key == "participant" and section else key


def _others(row: Mapping[str, str], numbers: Mapping[str, str]) -> bool:
    """Whether a student has another number on the same platform, and so only the name in common."""
    of_platform = [key for key in numbers if key.partition(":")[0] in _NUMBERS]
    return any(row.get(key) not in (None, "", numbers[key]) for key in of_platform if numbers[key])


def _key(name: str) -> str:
    """The letters and digits of a name, small and without accents: what Canvas leaves of it, and other platforms."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(sign))
    return re.sub(r"[\W_]", "", plain)


def _mails(row: Mapping[str, str]) -> set[str]:
    """Login and e-mail in small letters: one platform's login is another's e-mail."""
    return {row.get("login", "").casefold(), row.get("email", "").casefold()} - {""}


def _keys(row: Mapping[str, str]) -> set[str]:
    """The keys of a student's name in both orders."""
    first, last = first_and_last(row.get("name", ""))
    return {_key(first + last), _key(last + first)}


def _table(content: bytes) -> Iterable[dict[str, str]]:
    """A CSV file's rows, whatever the encoding and the separator."""
    text = _text(content)
    head = text.lstrip("\r\n").partition("\n")[0]
    separator = Counter(sign for sign in head if sign in ",;\t").most_common(1)
    reader = csv.DictReader(
        io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator[0][0] if separator else ","
    )
    for row in reader:
        yield {key.strip(): (value or "").strip() for key, value in row.items() if isinstance(key, str)}


def _text(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _named(row: Mapping[str, str]) -> dict[str, str]:
    """A row of a platform's table in our columns. Other columns, such as earlier grades, are left out."""
    found: dict[str, str] = {}
    is_canvas = "Student" in row and "ID" in row
    for column, value in row.items():
        name = _COLUMNS.get(column.casefold(), "")
        if column.casefold() == "id" and not is_canvas:
            name = "id"
        if column.casefold() == "role" and value.casefold() not in ("student", ""):
            name, value = "staff", value
        if name and value and name not in found:
            found[name] = value
    first, last = found.pop("first", ""), found.pop("last", "")
    if not found.get("name") and (first or last):
        found["name"] = f"{last}, {first}" if first and last else first or last
    if "participant" in found:
        found["participant"] = found["participant"].rpartition(" ")[2]  # "Participant 4711"
    return found


def names_of(rows: Iterable[Mapping[str, str]]) -> Sequence[str]:
    """The logins that may stand in a path."""
    return [row[key] for row in rows for key in ("id", "login", "email", "sid") if row.get(key)]

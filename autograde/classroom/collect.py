"""`autograde collect`: from what a learning platform hands out to submitted/STUDENT/SECTION/.

The source is a folder or a zip file with one folder (or one zip file) a student. Only files named like the section's
notebooks are taken; names are checked, links are not followed, and an archive is read no further than its limits. A
student's earlier submission moves to history/ before a new one takes its place.
"""

from __future__ import annotations

import datetime
import io
import os
import pathlib
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from autograde.classroom.folder import Course
from autograde.classroom.submission import MOST_BYTES, Unreadable, is_safe_name, read_bytes

_MOST_FILES = 20_000  # in an archive
_DEEP = 1  # archives inside archives


@dataclass
class Collected:
    """What came of it: students with something new, those whose files were there already, and what was left out."""

    new: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(course: Course, section: str, source: pathlib.Path) -> Collected:
    """Copy submissions into the course folder. Raises ValueError where `source` can't be read at all."""
    names = {of.name for of in course.outlines(section)}
    found, result = {}, Collected()
    for path, content in _files(pathlib.Path(source), result):
        student, name = path.parts[0].removesuffix(".zip"), path.name
        if not name.endswith(".ipynb") or name.removesuffix(".ipynb") not in names:
            continue
        if len(path.parts) < 2 or not is_safe_name(student):
            result.left_out.append(f"{str(path)!r}: no folder with a student's name")
        elif name in found.setdefault(student, {}):
            result.left_out.append(f"{str(path)!r}: {student} has another {name}")
        else:
            found[student][name] = content
    for student in sorted(found):
        (result.new if _put(course, student, section, found[student]) else result.same).append(student)
    return result


def _files(source: pathlib.Path, result: Collected) -> Iterator[tuple[pathlib.PurePosixPath, bytes]]:
    if source.is_dir():
        yield from _in_folder(source, result)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            yield from _in_archive(archive, pathlib.PurePosixPath(), result)
    else:
        raise ValueError(f"{source} is neither a folder nor a zip file.")


def _in_folder(source: pathlib.Path, result: Collected) -> Iterator[tuple[pathlib.PurePosixPath, bytes]]:
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            path = pathlib.Path(folder, name)
            inside = path.relative_to(source)
            if not name.endswith((".ipynb", ".zip")):
                continue
            try:
                content = read_bytes(path, source)
            except Unreadable as error:
                result.left_out.append(f"{str(inside)!r}: {error}")
                continue
            yield from _unpacked(pathlib.PurePosixPath(*inside.parts), content, result, 0)


def _unpacked(path, content: bytes, result: Collected, depth: int) -> Iterator[tuple[pathlib.PurePosixPath, bytes]]:
    if not path.name.endswith(".zip"):
        yield path, content
        return
    try:
        if depth > _DEEP:
            raise Unreadable("It is an archive in an archive in an archive.")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from _in_archive(archive, path, result, depth + 1)
    except (Unreadable, zipfile.BadZipFile, NotImplementedError) as error:
        result.left_out.append(f"{str(path)!r}: {error}")


def _in_archive(archive, above, result: Collected, depth: int = 0) -> Iterator[tuple[pathlib.PurePosixPath, bytes]]:
    members = archive.infolist()
    if len(members) > _MOST_FILES:
        raise Unreadable(f"It holds {len(members):,} files; at most {_MOST_FILES:,} are read.")
    for member in members:
        path = pathlib.PurePosixPath(member.filename)
        if member.is_dir() or not path.name.endswith((".ipynb", ".zip")):
            continue
        try:
            yield from _unpacked(above / path, _content(archive, member, path), result, depth)
        except Unreadable as error:
            result.left_out.append(f"{member.filename!r}: {error}")


def _content(archive, member, path: pathlib.PurePosixPath) -> bytes:
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
        raise Unreadable("The name points out of the archive.")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise Unreadable("It is a link; links are not followed.")
    try:
        with archive.open(member) as file:
            content = file.read(MOST_BYTES + 1)  # whatever size the archive claims
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
        raise Unreadable(f"It can't be unpacked ({type(error).__name__}).") from None
    if len(content) > MOST_BYTES:
        raise Unreadable(f"Unpacked it has more than {MOST_BYTES / 1e6:.0f} MB.")
    return content


def _put(course: Course, student: str, section: str, files: dict[str, bytes]) -> bool:
    """Store one student's files, unless they are there already. Says whether anything was new."""
    folder = course.root / "submitted" / student / section
    if folder.is_symlink() or folder.parent.is_symlink():
        raise ValueError(f"{folder} is a link. Remove it: submissions are kept in the course folder itself.")
    if folder.is_dir() and all(_same(folder / name, content) for name, content in files.items()):
        return False
    now = datetime.datetime.now(datetime.UTC)
    new = folder.parent / f".{section}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    if folder.is_dir():
        for path in folder.glob("*.ipynb"):  # what isn't handed in again stays
            if path.name not in files and not path.is_symlink():
                shutil.copy2(path, new)
    for name, content in files.items():
        (new / name).write_bytes(content)
    (new / "timestamp.txt").write_text(now.strftime("%Y-%m-%d %H:%M:%S.%f UTC\n"), encoding="ascii")
    if folder.is_dir():
        kept = course.root / "history" / student / section
        kept.mkdir(parents=True, exist_ok=True)
        os.rename(folder, kept / f"before-{now.strftime('%Y%m%d-%H%M%S-%f')}")
    os.rename(new, folder)
    return True


def _same(path: pathlib.Path, content: bytes) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content

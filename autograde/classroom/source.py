"""Reads what a learning platform hands out: a folder or a zip file, with every file in it.

A file that can't be read is there with a sentence that says why. Links are not followed, an archive is read no further
than its limits, and member names are understood whatever program wrote them: with backslashes, in UTF-8 without the
flag that says so, in the encodings of old.
"""

from __future__ import annotations

import codecs
import datetime
import io
import os
import pathlib
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from autograde.classroom.submission import MOST_FILE, Unreadable, read_bytes

_MOST_FILES = 20_000  # in an archive
_MOST_UNPACKED = 20 * 2**30  # bytes, of a whole source
_DEEP = 1  # archives inside archives
_READ = (".ipynb", ".zip")
_STAMPS = ("timestamp.txt",)  # nbgrader and Sakai put the time of a submission beside it


@dataclass(frozen=True)
class File:
    """A file of a source: `content` of notebooks and time stamps, `time` (local, or None), or a `problem`."""

    path: pathlib.PurePosixPath
    content: bytes = b""
    time: datetime.datetime | None = None
    problem: str = ""


def files_of(source: pathlib.Path, encoding: str = "") -> Iterator[File]:
    """Every file of a folder or zip file, as it comes. Raises ValueError where `source` can't be read at all.

    encoding: of the archives' member names, where they don't say it and the guess is wrong ("cp932")
    """
    source = pathlib.Path(source)
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError:
        raise ValueError(f"There is no encoding {encoding!r}.") from None
    reader = _Reader(encoding)
    if source.is_dir():
        yield from reader.folder(source)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            try:
                yield from reader.archive(archive, pathlib.PurePosixPath(), 0)
            except Unreadable as error:
                raise ValueError(f"{source}: {error}") from None
    else:
        raise ValueError(f"{source} is neither a folder nor a zip file.")


class _Reader:
    """Reads one source; counts what was unpacked."""

    def __init__(self, encoding: str):
        self.encoding, self.left = encoding, _MOST_UNPACKED

    def folder(self, source: pathlib.Path) -> Iterator[File]:
        for folder, folders, files in os.walk(source):
            for name in [name for name in folders if pathlib.Path(folder, name).is_symlink()]:
                inside = pathlib.Path(folder, name).relative_to(source)
                yield File(pathlib.PurePosixPath(*inside.parts), problem="It is a link; links are not followed.")
            folders.sort()
            for name in sorted(files):
                path = pathlib.Path(folder, name)
                inside = pathlib.PurePosixPath(*path.relative_to(source).parts)
                content = b""
                try:
                    if _is_read(name):
                        content = read_bytes(path, source)
                except Unreadable as error:
                    yield File(inside, problem=str(error))
                    continue
                written = datetime.datetime.fromtimestamp(path.lstat().st_mtime)
                yield from self.unpacked(File(_composed(inside), content, written), 0)

    def archive(self, archive: zipfile.ZipFile, above: pathlib.PurePosixPath, depth: int) -> Iterator[File]:
        members = archive.infolist()
        if len(members) > _MOST_FILES:
            raise Unreadable(f"It holds {len(members):,} files; at most {_MOST_FILES:,} are read.")
        for member in members:
            path = pathlib.PurePosixPath(member_name(member, self.encoding))
            if member.is_dir() or member_name(member).endswith("/"):
                continue
            try:
                if path.is_absolute() or ".." in path.parts:
                    raise Unreadable("The name points out of the archive.")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise Unreadable("It is a link; links are not followed.")
                content = self.content(archive, member) if _is_read(path.name) else b""
            except Unreadable as error:
                yield File(above / path.relative_to(path.anchor), problem=str(error))
                continue
            yield from self.unpacked(File(above / path, content, _time_of(member)), depth)

    def unpacked(self, file: File, depth: int) -> Iterator[File]:
        """The files of an archive inside, or the file itself."""
        if not file.path.name.casefold().endswith(".zip"):
            yield file
            return
        try:
            if depth > _DEEP:
                raise Unreadable("It is an archive in an archive in an archive.")
            with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
                yield from self.archive(archive, file.path, depth + 1)
        except (Unreadable, zipfile.BadZipFile, NotImplementedError) as error:
            yield File(file.path, problem=str(error))

    def content(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        try:
            with archive.open(member) as file:
                content = file.read(MOST_FILE + 1)  # whatever size the archive claims
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError) as error:
            raise Unreadable(f"It can't be unpacked ({type(error).__name__}).") from None
        self.left -= len(content)
        if len(content) > MOST_FILE:
            raise Unreadable(f"Unpacked it has more than {MOST_FILE / 1e6:.0f} MB.")
        if self.left < 0:
            raise Unreadable(f"The archives unpack to more than {_MOST_UNPACKED / 1e9:.0f} GB.")
        return content


def _is_read(name: str) -> bool:
    return name.casefold().endswith(_READ) or name in _STAMPS


def _time_of(member: zipfile.ZipInfo) -> datetime.datetime | None:
    """The local time in an archive, or None where it is the format's zero or no time at all."""
    try:
        return datetime.datetime(*member.date_time) if member.date_time[:3] > (1980, 1, 1) else None
    except ValueError:
        return None


def _composed(path: pathlib.PurePosixPath) -> pathlib.PurePosixPath:
    """Letters with accents as one character each: macOS takes them apart."""
    return pathlib.PurePosixPath(unicodedata.normalize("NFC", str(path)))


def member_name(member: zipfile.ZipInfo, encoding: str = "") -> str:
    """The name of a zip file's member, with slashes.

    It is UTF-8 where the archive says so or the bytes are; else in `encoding`, or where that is not given in the one of
    GB2312, code page 437 and Windows 1252 that makes letters of it.
    """
    name = member.orig_filename.split("\0")[0]
    if not member.flag_bits & 0x800 and not name.isascii():
        try:
            name = _unicode_field(member.extra) or _decoded(name.encode("cp437"), encoding)
        except UnicodeError:  # the name was given as a text, or the encoding is wrong for it
            name = member.filename
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _unicode_field(extra: bytes) -> str:
    """The name that Info-ZIP keeps beside one of the old encodings, or an empty text."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 0x7075 and size > 5:
            return extra[9 : 4 + size].decode("utf-8")
        extra = extra[4 + size :]
    return ""


def _decoded(raw: bytes, encoding: str) -> str:
    for name in [encoding] if encoding else ["utf-8", "gb2312", "cp437", "cp1252"]:
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        if encoding or name == "utf-8" or all(map(_is_letter, re.sub(r"[\x00-\x7f]", "", text))):
            return text
    return raw.decode(encoding or "cp437", "replace")


def _is_letter(sign: str) -> bool:
    return unicodedata.name(sign, "").startswith(("LATIN", "CJK UNIFIED"))

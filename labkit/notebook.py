"""Reads a notebook as a learner leaves it. `own`, grading and nbgrader's run all read with this module.

A notebook comes back from editors that drop marks, from people who paste, split, merge and move cells, and with lines
that only IPython understands. A `Reading` says which cell solves which exercise, and where each name that a solution
needs is defined. What a notebook holds is taken for text here: nothing of it is run.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import json
import re
import symtable
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MOST_TEXT = 2**20  # characters of code in a notebook
_MOST_MARKDOWN = 2**16  # characters of a text cell that is looked through for code
_MOST_LINES = 20_000  # of a notebook that are looked through for definitions; what is longer is only run
_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


class Unreadable(ValueError):
    """A file, or a part of it, that can't be read as a notebook; the message says why, in one sentence."""


def notebook_of(content: bytes) -> dict:
    """A notebook of format 4 (4.0 to 4.5 differ in nothing that is read here). Raises Unreadable.

    UTF-8, with a byte order mark or without, UTF-16 and UTF-32 are read: JSON's first bytes say which it is.
    """
    if not content.strip(b"\0 \t\r\n\xef\xbb\xbf\xfe\xff"):
        raise Unreadable("The file is empty.")
    try:
        notebook = json.loads(content)
    except UnicodeDecodeError:
        raise Unreadable("The file is not UTF-8 text.") from None
    except (ValueError, RecursionError, MemoryError):
        raise Unreadable("The file is not valid JSON: it may have been cut off, or edited by hand.") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        older = isinstance(notebook, dict) and isinstance(notebook.get("worksheets"), list)
        raise Unreadable("It is a notebook of the old format 3." if older else "It is JSON, but no notebook.")
    if notebook.get("nbformat") != 4:
        raise Unreadable("It is a notebook of another format than 4.")
    return notebook


def cells_of(content: bytes) -> list[dict]:
    """The cells of a notebook as plain dicts: cell_type, source (a text), metadata, id. Raises Unreadable."""
    cells = [_cell(cell) for cell in notebook_of(content)["cells"] if isinstance(cell, dict)]
    if sum(len(cell["source"]) for cell in cells if cell["cell_type"] == "code" or grade_id(cell)) > MOST_TEXT:
        raise Unreadable(f"The notebook holds more than {MOST_TEXT:,} characters of code.")
    return cells


def _cell(cell: Mapping) -> dict:
    source, metadata = cell.get("source", ""), cell.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    lines = source if isinstance(source, list) else [source]
    text = "".join(line for line in lines if isinstance(line, str)).replace("\r\n", "\n").replace("\r", "\n")
    return {
        "cell_type": cell.get("cell_type"),
        "source": text.encode("utf-8", "replace").decode("utf-8"),  # lone surrogates can't be stored anywhere
        "metadata": metadata,
        "id": str(cell.get("id") or metadata.get("id") or ""),  # Colab keeps it in the metadata
    }


# A cell's metadata is whatever the learner made of it, so nothing about its types is taken for granted.
def marks_of(cell: Mapping) -> Mapping:
    """A cell's nbgrader metadata, or an empty dict."""
    found = cell["metadata"].get("nbgrader")
    return found if isinstance(found, dict) else {}


def grade_id(cell: Mapping) -> str:
    """A cell's grade_id, or an empty text."""
    return str(marks_of(cell).get("grade_id", ""))


def tags(cell: Mapping) -> set[str]:
    """A cell's tags."""
    found = cell["metadata"].get("tags")
    return {str(tag) for tag in found} if isinstance(found, list) else set()


# Cell magics whose cell IPython does not run, or from which no name stays. Below the others stands plain code.
_UNRUN = frozenset(
    ["!", "HTML", "SVG", "bash", "cmd", "file", "html", "javascript", "js", "latex", "markdown", "perl", "pypy"]
    + ["python", "python2", "python3", "ruby", "script", "sh", "svg", "sx", "system", "timeit", "writefile"]
)
_CELL_MAGIC = re.compile(r"\s*%%([\w!]+)[^\n]*(?:\n|\Z)")
# A line, where a statement may begin, that is IPython's and not Python's.
_LINE = re.compile(
    r"(?P<indent>[ \t]*)(?:"
    r"%time[ \t]+(?P<timed>[^\n]+)"
    r"|(?P<target>[^\W\d][\w., ]*=[ \t]*)?[%!](?:\\\n|[^\n])*"
    r"|\?{1,2}[\w.*]+[ \t]*(?=\n|\Z)"
    r"|[^\W\d][\w.]*\?{1,2}[ \t]*(?=\n|\Z))"
)
_PIECE = re.compile(
    r'"""(?:\\.|(?!""").)*(?:"""|\Z)'
    r"|'''(?:\\.|(?!''').)*(?:'''|\Z)"
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?"
    r"|#[^\n]*|[(\[{]|[)\]}]|\\.|\n|[^\"'#()\[\]{}\\\n]+|.",
    re.DOTALL,
)


def unrun_magic(source: str) -> str:
    """The cell magic, such as "%%bash", under which the rest of a cell is not run here, or an empty text."""
    while found := _CELL_MAGIC.match(source):
        if found[1] in _UNRUN:
            return f"%%{found[1]}"
        source = source[found.end() :]
    return ""


def as_python(source: str) -> str:
    """A cell as Python with as many lines: magics and shell commands do nothing, `%time x = 1` becomes `x = 1`.

    What stands in a string or inside brackets stays, and so does a cell that is Python.
    """
    try:
        ast.parse(source)
        return source
    except _NOT_PYTHON:
        return _without_magics(source)


def _without_magics(source: str) -> str:
    above = 0
    while found := _CELL_MAGIC.match(source):
        if found[1] in _UNRUN:
            return ""
        above += found[0].count("\n")
        source = source[found.end() :]
    first = re.match(r"(?:[ \t]*\n)*([ \t]+)\S", source)
    if first:
        source = re.sub(f"^{first[1]}", "", source, flags=re.MULTILINE)
    return "\n" * above + "".join(_lines_without_magics(source))


def _lines_without_magics(source: str) -> Iterator[str]:
    at, depth, begins = 0, 0, True
    while at < len(source):
        if begins and (line := _LINE.match(source, at)):
            at = line.end()
            # A comment where it may be one: `from __future__` has to come before any statement.
            plain = line["timed"] or (f"{line['target']}None" if line["target"] else "pass" if line["indent"] else "#")
            yield line["indent"] + plain + "\n" * (line[0].count("\n"))
            begins = False
            continue
        piece = _PIECE.match(source, at)[0]
        at += len(piece)
        depth = max(0, depth + (piece in "([{") - (piece in ")]}"))
        begins = piece == "\n" and depth == 0
        yield piece


def compiled(source: str, filename: str):
    """A cell's code object, as IPython would run it. Raises SyntaxError, and what else compile() raises.

    IPython takes `from __future__` in any place; here annotations stay unevaluated in every cell, as after it.
    """
    tree = ast.parse(as_python(source), filename)
    tree.body = [node for node in tree.body if getattr(node, "module", None) != "__future__"]
    return compile(tree, filename, "exec")


def statements(source: str) -> list[ast.stmt]:
    """The top statements of a cell, or none where it isn't Python, or is too long to be looked through."""
    if _lines(source) > _MOST_LINES:
        return []
    with contextlib.suppress(*_NOT_PYTHON):
        return ast.parse(source).body
    with contextlib.suppress(*_NOT_PYTHON):
        return ast.parse(_without_magics(source)).body
    return []


@dataclass(frozen=True, eq=False)
class _Top:
    """A top statement of a cell, with the names that it defines and those whose objects it changes."""

    node: ast.stmt
    binds: frozenset[str]
    changes: frozenset[str]


def _tops(source: str) -> tuple[_Top, ...]:
    return tuple(_Top(node, frozenset(_binds(node)), frozenset(_changes(node))) for node in statements(source))


_tops_of_known = functools.lru_cache(maxsize=2_000)(_tops)


def _lines(source: str) -> int:
    return source.count("\n") + source.count(";") + 1


def is_open(nodes: Iterable[ast.stmt], name: str) -> bool:
    """Whether the definition of `name` among these can still arrive at the stub, `raise NotImplementedError`."""
    for node in nodes:
        if isinstance(node, _DEFINITIONS) and node.name == name:
            functions = [inner for inner in ast.walk(node) if isinstance(inner, _FUNCTIONS)]
            return any(_arrives_at_stub(function.body) for function in functions)
    return False


_IMPORTS = (ast.Import, ast.ImportFrom)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)


def _arrives_at_stub(body: Sequence[ast.stmt]) -> bool:
    for node in body:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id == "NotImplementedError":
            return True
        if _leaves(node):
            return False
    return False


def _leaves(node: ast.stmt) -> bool:
    """Whether a statement surely leaves its function."""
    if isinstance(node, ast.If):
        return bool(node.orelse) and _leaves(node.body[-1]) and _leaves(node.orelse[-1])
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return _leaves(node.body[-1])
    return isinstance(node, (ast.Return, ast.Raise))


def used_and_defined(source: str) -> tuple[set[str], set[str]]:
    """The global names that a source reads without defining them, and those that it defines. It has to be Python."""
    top = symtable.symtable(source, "cell", "exec")
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    for table in tables_below(top):
        used |= globals_of(table)
        defined |= {s.get_name() for s in table.get_symbols() if s.is_declared_global() and s.is_assigned()}
    return used - defined, defined


def tables_below(table: symtable.SymbolTable) -> list[symtable.SymbolTable]:
    """The symbol tables of everything inside, at any depth."""
    return [inner for child in table.get_children() for inner in (child, *tables_below(child))]


def globals_of(table: symtable.SymbolTable) -> set[str]:
    """The global names that a function or class reads itself."""
    return {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}


def bound(source: str) -> set[str]:
    """The names that the top statements of a cell define."""
    return set().union(*map(_binds, statements(source)))


def _binds(top: ast.stmt) -> set[str]:
    """The global names that a statement defines."""
    found = set()
    for node in _outside_functions(top):
        if isinstance(node, _DEFINITIONS):
            found.add(node.name)
        elif isinstance(node, _IMPORTS):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def _changes(top: ast.stmt) -> set[str]:
    """The global names whose objects a statement changes: `a` in `a[0] = 1`, `a.b = 1`, `a.append(1)`, `@a.f`."""
    found = set()
    for node in _outside_functions(top):
        if isinstance(node, _DEFINITIONS):
            found |= {_root(each) for each in node.decorator_list if isinstance(each, ast.Attribute)}
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            found.add(_root(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found.add(_root(node.value.func) if isinstance(node.value.func, ast.Attribute) else "")
    return found


def _outside_functions(top: ast.stmt) -> Iterator[ast.AST]:
    """A statement and all in it that has no scope of its own."""
    waiting: list[ast.AST] = [top]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
            yield node
            waiting += [] if isinstance(node, _DEFINITIONS) else ast.iter_child_nodes(node)


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


@dataclass(frozen=True, eq=False)
class Definition:
    """One statement that defines or changes names: `cell` is the number of its cell, `place` its place in there."""

    cell: int
    place: int
    node: ast.stmt
    names: frozenset[str]

    @functools.cached_property
    def uses(self) -> frozenset[str]:
        """The global names that it reads, now or when it is called."""
        try:
            used, defined = used_and_defined(self.text)
        except _NOT_PYTHON:
            return frozenset()
        return frozenset(used | (self.names - defined))

    @property
    def text(self) -> str:
        """Its source, without comments; an empty text where it is nested too deeply for that."""
        with contextlib.suppress(*_NOT_PYTHON):
            return ast.unparse(self.node)
        return ""


class Reading:
    """A learner's notebook, sorted: which cell solves which exercise, and where each name is defined.

    cells:     those of `cells_of`, or nbformat's
    exercises: the names of the exercises, which are the grade_ids of their cells and what these cells define
    known:     texts of the release, which are looked through once for all notebooks that have them

    `chosen` has the number of each exercise's cell, and `notes` what there is to tell about the choice. Of several
    cells of an exercise the last solved one is chosen; where none is solved, a definition without a mark. Half of a
    cell that was cut in two inside of a function is put back to the other half.
    """

    def __init__(self, cells: Iterable[Mapping], exercises: Collection[str], known: Collection[str] = ()):
        self.cells = [_cell(cell) for cell in cells]
        self.exercises = frozenset(exercises)
        self.ids = [grade_id(cell) for cell in self.cells]
        self.texts = self._joined()
        tops = self._parsed(known)
        self.nodes = [[top.node for top in each] for each in tops]
        self._definitions = self._defined(tops)
        self.chosen: dict[str, int] = {}
        self.notes: dict[str, str] = {}
        self.lost_marks = not self.exercises & set(self.ids)
        for name in exercises:
            self._choose(name)

    def is_code(self, number: int) -> bool:
        """Whether a cell is code, or an exercise that one key press has turned into a text."""
        return self.cells[number]["cell_type"] == "code" or self.ids[number] in self.exercises

    def text_of(self, name: str) -> str | None:
        """The source of the cell that is chosen for an exercise."""
        return self.texts[self.chosen[name]] if name in self.chosen else None

    def needed(self, names: Iterable[str], near: int, given: Collection[str] = ()) -> list[Definition]:
        """The definitions of `names`, and of all that these read, in the notebook's order.

        near:  the number of the cell that asks: of several cells that define a name the one itself is taken, or the
               next above, or the next below.
        given: names that are defined already. What defines them is asked for what it needs, and left out.
        """
        found, waiting, seen = {}, list(names), set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for each in self._definitions_of(name, near):
                waiting += each.uses
                if name not in given:
                    found[each.cell, each.place] = each
        return [found[key] for key in sorted(found)]

    def uses(self, number: int) -> set[str]:
        """The names that the definitions in a cell read."""
        inside = {each for cells in self._definitions.values() for each in cells.get(number, [])}
        return {name for each in inside for name in each.uses}

    def _definitions_of(self, name: str, near: int) -> list[Definition]:
        cells = self._definitions.get(name, {})
        chosen = self.chosen.get(name)
        if chosen in cells:
            return cells[chosen]
        order = sorted(cells, key=lambda n: (not self.is_code(n), n > near, abs(n - near)))
        if order and order[0] > near and hasattr(builtins, name):
            return []
        return cells[order[0]] if order else []

    def _joined(self) -> list[str]:
        """The cells' sources, where both halves of a function that was cut in two stand in the first one's cell."""
        texts, first = [cell["source"] for cell in self.cells], -1
        for number, cell in enumerate(self.cells):
            mine = self.ids[number] in self.exercises
            if first >= 0 and cell["cell_type"] == "code" and self.ids[number] in ("", self.ids[first]):
                together = f"{texts[first]}\n{texts[number]}"
                if re.match(r"(?:[ \t]*\n)*[ \t]+\S", texts[number]) and statements(together):
                    texts[first], texts[number] = together, ""
                    first = -1
                    continue
            if cell["cell_type"] == "code" or mine:
                first = number if mine else -1
        return texts

    def _parsed(self, known: Collection[str]) -> list[tuple[_Top, ...]]:
        """The cells' top statements. Texts count where they are code with definitions."""
        tops, left = [], _MOST_LINES
        for number, text in enumerate(self.texts):
            looked_at = (self.is_code(number) or _may_be_code(text)) and _lines(text) <= left
            left -= _lines(text) if looked_at else 0
            look = _tops_of_known if text.strip() in known else _tops
            tops.append(look(text) if looked_at else ())
        return tops

    def _defined(self, tops: Sequence[tuple[_Top, ...]]) -> dict[str, dict[int, list[Definition]]]:
        """name -> cell -> the statements that define or change it."""
        found: dict[str, dict[int, list[Definition]]] = defaultdict(lambda: defaultdict(list))
        for number, each in enumerate(tops):
            mine: set[str] = set()  # what is made in this cell: changes to a module are no definition of it
            for place, top in enumerate(each):
                names = top.binds | (top.changes & mine)
                if not isinstance(top.node, _IMPORTS):
                    mine |= names
                if not _is_autograde(top.node):
                    made = Definition(number, place, top.node, names)
                    for name in names:
                        found[name][number].append(made)
        return found

    def _choose(self, name: str) -> None:
        marked = [n for n, found in enumerate(self.ids) if found == name]
        last = ""
        for number, found in enumerate(self.ids):
            last = found or last
            if not found and last == name and self.is_code(number) and self._is_solved(number, name):
                marked.append(number)  # the second half of a cell that was cut in two, or another attempt
        marked = [n for n in sorted(marked) if self.texts[n].strip()]
        best = max((self._rank(n, name) for n in marked), default=0)
        others = [n for n, found in enumerate(self.ids) if found not in self.exercises and self._is_solved(n, name)]
        if best < 2 and others:
            self.chosen[name] = max(others, key=lambda n: (self.is_code(n), n))
        elif marked:
            self.chosen[name] = [n for n in marked if self._rank(n, name) == best][-1]
        else:
            return
        kind = self.cells[self.chosen[name]]["cell_type"]
        attempts = {self.texts[n].strip() for n in marked if self.binds(n, name)}
        if kind != "code":
            self.notes[name] = f"its cell is {kind} and was read as code"
        elif self.chosen[name] not in marked and not self.lost_marks:
            self.notes[name] = "it is taken from a cell that has not the exercise's mark"
        elif len(attempts) > 1:
            self.notes[name] = f"it is there {len(attempts)} times and the last solved one counts"

    def is_stub(self, number: int) -> bool:
        """Whether a cell is what an exercise begins with, or part of it: nothing in it is solved."""
        nodes = self.nodes[number]
        defined = self.exercises & {node.name for node in nodes if isinstance(node, _DEFINITIONS)}
        return _arrives_at_stub(nodes) or (bool(defined) and all(is_open(nodes, name) for name in defined))

    def _rank(self, number: int, name: str) -> int:
        return 2 if self._is_solved(number, name) else 0 if self.is_stub(number) else 1

    def _is_solved(self, number: int, name: str) -> bool:
        """Whether a cell defines an exercise, and not as the stub. Without its mark it has to do so as its own name."""
        if self.ids[number] != name and not any(
            isinstance(each.node, _DEFINITIONS) and each.node.name == name
            for each in self._definitions.get(name, {}).get(number, [])
        ):
            return False
        return self.binds(number, name) and not is_open(self.nodes[number], name)

    def binds(self, number: int, name: str) -> bool:
        """Whether a cell defines a name."""
        return number in self._definitions.get(name, {})


def _may_be_code(text: str) -> bool:
    return len(text) <= _MOST_MARKDOWN and bool(re.search(r"^(?:async def|def|class) \w", text, re.MULTILINE))


def _is_autograde(node: ast.stmt) -> bool:
    """An import of the course's checks: they are for the notebook alone."""
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == "autograde"
    return isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "autograde" for alias in node.names)

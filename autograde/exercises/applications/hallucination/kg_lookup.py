"""`kg_lookup(triples, start, path)`: Where a path of relations leads in a graph of facts, and by which facts."""

from __future__ import annotations

from autograde.exercise import Draft, case
from autograde.exercises.applications.hallucination.shared import shuffled
from autograde.exercises.shared import pick

exercise = Draft(
    "kg_lookup",
    points=3,
    no_gradient="names are looked up, not trained",
    hints=[
        "At each step you stand on a *set* of entities. Which facts lead on from any of them?",
        "here = {start}; for each relation: used = [t for t in triples if t[1] == relation and t[0] in here]. "
        "'^' swaps the two ends.",
        "Keep the facts that led on; go to their other ends: here = {t[2] for t in used}. At the end: sorted(here).",
    ],
)


def _graph(g, people=6):
    """Who wrote what, where it was printed, in which country that lies; and who knows whom, in circles."""
    who = [f"author {c}" for c in shuffled(g, "ABCDEFGH")[:people]]
    books = [f"book {n}" for n in shuffled(g, range(10, 30))[: people + 3]]
    towns, lands = shuffled(g, ["Bern", "Oslo", "Lima", "Rabat"]), shuffled(g, ["North", "South", "East"])
    facts = [(who[i % people], "wrote", book) for i, book in enumerate(books)]
    facts += [(book, "printed in", towns[pick(g, 0, 3)]) for book in books]
    facts += [(town, "lies in", lands[i % 3]) for i, town in enumerate(towns)]
    facts += [(who[i], "knows", who[(i + 1) % people]) for i in range(people)]
    return facts, who, books, towns, lands


@exercise.cases
def questions(g):
    facts, who, books, towns, lands = _graph(g)
    mixed = shuffled(g, facts)
    yield case(mixed, who[0], ["wrote"], label="one step, several answers")
    yield case(mixed, who[1], ["wrote", "printed in", "lies in"], label="three steps")
    yield case(mixed, lands[0], ["^lies in", "^printed in", "^wrote"], label="three steps back")
    yield case(mixed, books[0], ["^wrote", "wrote"], label="back and forth: other books of the author")
    yield case(mixed, who[2], ["knows"] * len(who), label="around in a circle")
    yield case(mixed, who[2], [], label="an empty path")
    yield case(mixed, "nobody", ["wrote"], label="an entity that isn't there")
    yield case(mixed, "nobody", [], label="an empty path from an entity that isn't there")
    yield case(mixed, who[3], ["wrote", "owns"], label="a relation that isn't there")
    yield case(mixed, lands[1], ["lies in"], label="a relation that only leads here")
    yield case([], who[0], ["wrote"], label="no facts")
    again = [fact for fact in facts if fact[0] == who[4]] * 2
    yield case(shuffled(g, [*mixed, *again, (who[4], "wrote", books[0])]), who[4], ["wrote"], label="facts said twice")
    both = [("A", "knows", "B"), ("A", "likes", "B"), ("B", "likes", "A"), ("B", "knows", "C"), ("A", "knows", "A")]
    for path in (["knows", "likes"], ["likes", "^knows"]):
        yield case(shuffled(g, both), start="A", path=path, label=f"several relations between two: {' '.join(path)}")
    fan = [("hub", "has", f"part {i}") for i in shuffled(g, range(12))] + [(f"part {i}", "in", "hub") for i in range(9)]
    yield case(fan, "hub", ["has", "in", "has"], label="many ways to one place")
    marks = [("Bern", "Lies in", "Oslo"), ("Ber", "lies in", "Lima"), ("Bern", "lies in", "Ber"), ("m", "m^2", "Bern")]
    for path in (["lies in"], ["^m^2", "m^2", "lies in"]):
        label = f"relations and names like others: {' '.join(path)}"
        yield case(shuffled(g, [*facts, *marks]), "Bern", path, label=label)
    near = [("Bern", "lies in ", "Graz"), ("Bern", "lies", "Ulm"), ("Bern", "lies in the", "Bonn"), *facts]
    yield case(shuffled(g, near), "Bern", ["lies in"], label="relations that hold others, and one with a space behind")
    yield case([*mixed, ("Bern", "lies in", "bern"), ("bern", "lies in", "Bern")], "bern", ["lies in"], label="letters")


@exercise.oracle
def networkx_walk(triples, start, path):
    import networkx as nx

    graph = nx.MultiDiGraph()
    for s, r, o in triples:
        graph.add_edge(s, o, key=r)
    here, used, reverse = {start}, [], graph.reverse()
    for step in path:
        way, relation = (reverse, step[1:]) if step.startswith("^") else (graph, step)
        taken = [(a, b) for a in here if a in way for _, b, key in way.out_edges(a, keys=True) if key == relation]
        used += [(b, relation, a) if step.startswith("^") else (a, relation, b) for a, b in taken]
        here = {b for _, b in taken}
    order = {tuple(t): i for i, t in reversed(list(enumerate(map(tuple, triples))))}
    return sorted(here), [list(t) for t in sorted(set(used), key=order.get)]


def _plain(result):
    found, facts = result
    return list(found), [list(fact) for fact in facts]


@exercise.agrees
def lists_or_tuples(expected, got, one):
    try:
        found, facts = _plain(got)
        whole = not any(isinstance(part, str) for part in got)
    except (TypeError, ValueError):
        whole = False
    if not whole:
        return "the result should be two lists: the entities, and the facts"
    if found != list(expected[0]):
        return f"the path should lead to {expected[0]}, and leads to {found}"
    if facts != _plain(expected)[1]:
        return f"the facts should be {expected[1]}, and are {facts}"
    return True


@exercise.law("Every fact that is given stands in the graph, and no fact comes twice")
def facts_are_facts(out, one, call):
    triples = one.args[0] if one.args else one.kwargs["triples"]
    known = [list(t) for t in triples]
    _, facts = _plain(out)
    return all(fact in known for fact in facts) and len({tuple(f) for f in facts}) == len(facts)


@exercise.law("The order of the facts changes no answer")
def order_of_facts(out, one, call):
    triples, *rest = one.args
    return list(call(triples[::-1], *rest, **one.kwargs)[0]) == list(out[0])


def _walk(
    back=True,
    dedupe=True,
    sort=True,
    gather=True,
    known=True,
    links=None,
    first=False,
    live=False,
    keep=False,
    alike=str.__eq__,
):
    """`kg_lookup` in parts."""

    def kg_lookup(triples, start, path):
        facts = [tuple(t) for t in triples]
        if links:
            facts = links(facts)
        if dedupe:
            facts = list(dict.fromkeys(facts))
        here, used = [start] if known or any(start in (t[0], t[2]) for t in facts) else [], set()
        reached = list(here)
        for step in path:
            backwards = step.startswith("^")
            relation = step.removeprefix("^")
            backwards = backwards and back
            at, to = (2, 0) if backwards else (0, 2)
            taken = [t for t in facts if alike(t[1], relation) and t[at] in here]
            taken = taken[:1] if first else taken
            used |= set(taken)
            here = (
                list(dict.fromkeys(t[to] for t in taken))
                if gather
                else [t[to] for a in here for t in taken if t[at] == a]
            )
            reached += here
        here = list(dict.fromkeys(reached)) if keep else here
        chosen = [t for t in facts if t in used]
        if live:
            ends = 2 if not path or not path[-1].startswith("^") else 0
            chosen = [t for t in chosen if path and t[1] == path[-1].removeprefix("^") and t[ends] in here]
        return sorted(here) if sort else here, [list(t) for t in chosen]

    return kg_lookup


exercise.mistake(
    "'^' is ignored: relations are only followed forward", hint="'^wrote' leads from a book to its author."
)(_walk(back=False))
exercise.mistake("facts that are said twice come twice", hint="A fact is a fact once: dict.fromkeys keeps the order.")(
    _walk(dedupe=False)
)
exercise.mistake("the entities aren't sorted", hint="sorted(…): the answer must not depend on the order of the facts.")(
    _walk(sort=False)
)
exercise.mistake("an entity that is reached in several ways comes several times", hint="A set of entities.")(
    _walk(gather=False)
)
exercise.mistake("only the first fact is followed at each step", hint="An author has several books: follow them all.")(
    _walk(first=True)
)
exercise.mistake("all entities on the way come back", hint="Where the path ends, not where it passes.")(
    _walk(keep=True)
)
exercise.mistake("only the facts of the last step are given", hint="A proof is the whole way.")(_walk(live=True))
exercise.mistake(
    "two entities have one relation at most",
    hint="A knows B *and* likes B. In networkx that needs a MultiDiGraph: a DiGraph keeps the last one.",
)(_walk(links=lambda facts: list({(s, o): (s, r, o) for s, r, o in facts}.values())))
exercise.mistake("an entity has one object a relation", hint="A dict of (subject, relation) needs lists as values.")(
    _walk(links=lambda facts: list({(s, r): (s, r, o) for s, r, o in facts}.values()))
)
exercise.mistake("relations are followed both ways", hint="'A wrote B' leads from A to B; back is '^wrote'.")(
    _walk(links=lambda facts: facts + [(o, r, s) for s, r, o in facts])
)
exercise.mistake("capital letters don't count", hint="Names are compared as they stand.")(
    lambda triples, start, path: _walk()([[s.lower(), r, o.lower()] for s, r, o in triples], start.lower(), path)
)
exercise.mistake("capital letters of relations don't count", hint="Names are compared as they stand.")(
    _walk(alike=lambda a, b: a.lower() == b.lower())
)
exercise.mistake("a relation counts if it holds the one that is asked for", hint="'lies in the' isn't 'lies in': ==.")(
    _walk(alike=lambda a, b: b in a)
)
exercise.mistake("white space around a relation doesn't count", hint="Names are compared as they stand.")(
    _walk(alike=lambda a, b: a.strip() == b.strip())
)
exercise.mistake("every '^' of a relation is taken away", hint="Only the first letter says which way: step[1:].")(
    _walk(alike=lambda a, b: a == b.replace("^", ""))
)
exercise.mistake("'^' is taken for a part of the name", hint="'^wrote' is the relation 'wrote', followed back.")(
    lambda triples, start, path: _walk()(triples, start, [f"no {s}" if s.startswith("^") else s for s in path])
)
exercise.mistake("a name counts if it stands within another one", hint="'Ber' isn't 'Bern': keep a set of names.")(
    lambda triples, start, path: _within_names(triples, start, path)
)
exercise.mistake("relations are ignored: all neighbors are followed", hint="Only facts of the relation lead on.")(
    lambda triples, start, path: _all_neighbors(triples, start, path)
)


def _within_names(triples, start, path):
    facts, here, used = list(dict.fromkeys(map(tuple, triples))), {start}, set()
    for step in path:
        at, to = (2, 0) if step.startswith("^") else (0, 2)
        taken = [t for t in facts if t[1] == step.removeprefix("^") and any(t[at] in name for name in here)]
        used |= set(taken)
        here = {t[to] for t in taken}
    return sorted(here), [list(t) for t in facts if t in used]


def _all_neighbors(triples, start, path):
    facts, here, used = list(dict.fromkeys(map(tuple, triples))), {start}, set()
    for step in path:
        at, to = (2, 0) if step.startswith("^") else (0, 2)
        taken = [t for t in facts if t[at] in here]
        used |= set(taken)
        here = {t[to] for t in taken}
    return sorted(here), [list(t) for t in facts if t in used]


@exercise.mistake("facts come in the order in which they are followed", hint="In the order in which triples has them.")
def as_followed(triples, start, path):
    facts, here, used = list(dict.fromkeys(map(tuple, triples))), {start}, []
    for step in path:
        at, to = (2, 0) if step.startswith("^") else (0, 2)
        taken = [t for t in facts if t[1] == step.removeprefix("^") and t[at] in here]
        used += [t for t in taken if t not in used]
        here = {t[to] for t in taken}
    return sorted(here), [list(t) for t in used]


@exercise.mistake("the facts are sorted", hint="In the order in which triples has them; the entities are sorted.")
def sorted_facts(triples, start, path):
    found, facts = _walk()(triples, start, path)
    return found, sorted(facts)


@exercise.mistake(
    "the facts of a path that ends nowhere are dropped", hint="Every fact that was followed, at any step."
)
def no_dead_ends(triples, start, path):
    found, facts = _walk()(triples, start, path)
    return found, facts if found else []


@exercise.mistake("no entity is visited twice", hint="A path may come back: 'other books of the same author' has to.")
def visits_once(triples, start, path):
    facts, here, seen, used = list(dict.fromkeys(map(tuple, triples))), {start}, {start}, set()
    for step in path:
        at, to = (2, 0) if step.startswith("^") else (0, 2)
        taken = [t for t in facts if t[1] == step.removeprefix("^") and t[at] in here and t[to] not in seen]
        used |= set(taken)
        here = {t[to] for t in taken}
        seen |= here
    return sorted(here), [list(t) for t in facts if t in used]


@exercise.mistake("an unknown relation is passed over", hint="Where no fact leads on, the path ends: no entity.")
def skips_unknown(triples, start, path):
    known = {t[1] for t in triples}
    return _walk()(triples, start, [step for step in path if step.removeprefix("^") in known])


exercise.mistake("an empty path gives nothing for an unknown entity", hint="An empty path ends where it starts.")(
    _walk(known=False)
)

exercise.alternative(_walk())


@exercise.alternative
def by_index(triples, start, path):
    """Two dictionaries, one a direction."""
    forth, back = {}, {}
    for s, r, o in triples:
        forth.setdefault((s, r), set()).add(o)
        back.setdefault((o, r), set()).add(s)
    here, used = {start}, set()
    for step in path:
        following, nearby = set(), here
        for entity in nearby:
            if step[:1] == "^":
                ends = back.get((entity, step[1:]), set())
                used |= {(end, step[1:], entity) for end in ends}
            else:
                ends = forth.get((entity, step), set())
                used |= {(entity, step, end) for end in ends}
            following |= ends
        here = following
    firsts = []
    for fact in map(tuple, triples):
        if fact in used and fact not in firsts:
            firsts.append(fact)
    return sorted(here), firsts


@exercise.alternative
def by_depth_first(triples, start, path):
    facts, used = [tuple(t) for t in triples], []

    def ends(entity, rest):
        if not rest:
            return {entity}
        found = set()
        for s, r, o in facts:
            a, b = (o, s) if rest[0].startswith("^") else (s, o)
            if r == rest[0].removeprefix("^") and a == entity:
                used.append((s, r, o))
                found |= ends(b, rest[1:])
        return found

    return sorted(ends(start, path)), sorted(set(used), key=facts.index)

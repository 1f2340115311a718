#!/bin/bash
# duckdb 2.0.1: a vector of zeros is the most similar to every query by array_cosine_similarity, and the farthest by
# array_cosine_distance.
#
# Guess: similarity is 1 minus distance, so ordering by the one downwards and by the other upwards gives the same rows.
# For a vector of zeros neither is defined: NULL (which comes last), 0 or an error, and in no case the first place.
# Seen: both are NaN, and NaN is greater than every number for DuckDB. So the zeros come last by distance, and first by
# similarity, before the query's own copy. list_cosine_similarity and WHERE similarity > .5 let them through as well.
# That NaN is the greatest is in the documentation of floats; that these functions give it isn't in theirs.
#
# Where it matters: an empty text, a text of unknown words only or a failed request often gets a vector of zeros. A
# handful of such chunks fills the context of every answer: no error, no missing value, only bad answers. Leave these
# rows out, or order by distance.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check duckdb==2.0.1
cat > "$folder/ask.py" <<'PYTHON'
import duckdb

base = duckdb.connect()
base.execute("create table shelf (name text, place float[2])")
for name, place in [("same", [1, 0]), ("near", [1, 0.1]), ("zeros", [0, 0]), ("across", [0, 1]), ("away", [-1, 0])]:
    base.execute("insert into shelf values (?, ?)", [name, place])
for measure, tail in [
    ("array_cosine_similarity", "order by value desc"), ("list_cosine_similarity", "order by value desc"),
    ("array_cosine_similarity", "where value > 0.5"), ("array_cosine_distance", "order by value"),
]:
    ask = f"select name, value from (select name, {measure}(place, [1, 0]::float[2]) as value from shelf) {tail}"
    print(measure, tail + ":", *[f"{name} {value:.3f}" for name, value in base.execute(ask).fetchall()])
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="array_cosine_similarity order by value desc: zeros nan same 1.000 near 0.995 across 0.000 away -1.000
list_cosine_similarity order by value desc: zeros nan same 1.000 near 0.995 across 0.000 away -1.000
array_cosine_similarity where value > 0.5: same 1.000 near 0.995 zeros nan
array_cosine_distance order by value: same 0.000 near 0.005 across 1.000 away 2.000 zeros nan"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

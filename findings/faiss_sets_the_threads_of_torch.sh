#!/bin/bash
# faiss-cpu 1.15.1, torch 2.13.0: faiss.omp_set_num_threads(1) takes PyTorch's threads away as well, if torch was
# imported first.
#
# Guess: each library has a call for its own threads: after torch.set_num_threads(3) and faiss.omp_set_num_threads(1)
# torch has three and faiss has one.
# Seen: both have one, and torch.set_num_threads(2) gives both two. If torch hasn't computed yet, it is the other way
# round: its first look at the count gives both three. Each wheel for Linux brings a libgomp of its own, but torch
# loads its one for the whole process, and what is imported later calls that one. With faiss imported first the two
# are apart, as guessed: the order of two import lines decides.
#
# Where it matters: faiss is held to one thread so that a search gives the same each time, or so that it is timed
# fairly, and from there on the model runs on one thread, too; a sorter of imports may change it back. Set torch's
# threads again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check faiss-cpu==1.15.1 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
import importlib
import sys

for name in sys.argv[1:3]:
    globals()[name] = importlib.import_module(name)
torch.set_num_threads(3)
if "used" in sys.argv:
    torch.get_num_threads()  # as each parallel computation does
faiss.omp_set_num_threads(1)
told = f"{sys.argv[1]} first{', torch used' if 'used' in sys.argv else ''}:"
print(told, "faiss set to 1: torch", torch.get_num_threads(), "faiss", faiss.omp_get_max_threads())
torch.set_num_threads(2)
print(told, "torch set to 2: torch", torch.get_num_threads(), "faiss", faiss.omp_get_max_threads())
PYTHON
unset OMP_NUM_THREADS
{
    "$folder/venv/bin/python" "$folder/ask.py" torch faiss used
    "$folder/venv/bin/python" "$folder/ask.py" torch faiss
    "$folder/venv/bin/python" "$folder/ask.py" faiss torch used
} | tee "$folder/told"
wanted="torch first, torch used: faiss set to 1: torch 1 faiss 1
torch first, torch used: torch set to 2: torch 2 faiss 2
torch first: faiss set to 1: torch 3 faiss 3
torch first: torch set to 2: torch 2 faiss 2
faiss first, torch used: faiss set to 1: torch 3 faiss 1
faiss first, torch used: torch set to 2: torch 2 faiss 1"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

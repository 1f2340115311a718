#!/bin/bash
# transformers 5.23.0: HfArgumentParser reads lr: 1e-4 from a YAML file as a text; --lr 1e-4 is a number.
#
# Guess: the fields of the dataclass have types, so parse_yaml_file gives what the command line gives: the float .0001,
# or an error where a value doesn't fit.
# Seen: the values are put in as YAML gives them, and YAML 1.1 takes 1e-4 (without a point) for a text; 1.0e-4 is a
# number. n: 2.5 for an int and "no" for a bool go through as well. parse_dict and parse_json_file don't look at the
# types either. Twice the rate is "1e-41e-4" then, and n times it fails far from the file.
#
# Where it matters: configurations of trainings: 1e-4 is how one writes a learning rate. TrainingArguments' own rates
# are mended later on, those of one's own dataclass beside it aren't.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ask.py" <<'PYTHON'
from dataclasses import dataclass
from pathlib import Path

from transformers import HfArgumentParser


@dataclass
class Settings:
    lr: float = 0.1
    decay: float = 0.1
    steps: int = 3
    verbose: bool = False


parser, path = HfArgumentParser(Settings), Path(__file__).with_name("settings.yaml")
path.write_text("lr: 1e-4\ndecay: 1.0e-4\nsteps: 2.5\nverbose: 'no'\n")
(read,) = parser.parse_yaml_file(path)
(line,) = parser.parse_args_into_dataclasses(["--lr", "1e-4", "--decay", "1.0e-4", "--verbose", "no"])
print("file:", read, "twice the rate:", 2 * read.lr)
print("line:", line)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" | tee "$folder/told"
wanted="file: Settings(lr='1e-4', decay=0.0001, steps=2.5, verbose='no') twice the rate: 1e-41e-4
line: Settings(lr=0.0001, decay=0.0001, steps=3, verbose=False)"
if [ "$(cat "$folder/told")" = "$wanted" ]; then echo "as seen"; else echo "it has changed"; exit 1; fi

#!/bin/bash
# papermill 2.7.0: a cell tagged raises-exception doesn't stop the run, and fails it all the same.
#
# Guess: papermill runs on nbclient, which lets a cell with this tag raise (as JupyterLab's Run All does), so a notebook
# whose only error stands in such a cell is a success for papermill, too.
# Seen: the cells after it run and the notebook is written whole; then PapermillExecutionError is raised, and two cells
# with a red banner are put into the file. nbclient 0.11.0 alone raises nothing.
#
# Where it matters: an exercise notebook in which a cell may fail as long as nothing is solved. Whoever runs a class's
# notebooks with papermill has to look at the tags himself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check papermill==2.7.0 nbclient==0.11.0 ipykernel==7.4.0
cat > "$folder/ask.py" <<'PYTHON'
import nbformat
import papermill
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

may_raise = new_code_cell("raise NotImplementedError", metadata={"tags": ["raises-exception"]})
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def notebook():
    return new_notebook(cells=[may_raise.copy(), new_code_cell("print('went on')")], metadata=kernel)


NotebookClient(notebook()).execute()
print("nbclient: no error")
try:
    papermill.execute_notebook(notebook(), "out.ipynb", progress_bar=False)
    print("papermill: no error")
except papermill.PapermillExecutionError as error:
    print("papermill:", type(error).__name__)
made = nbformat.read("out.ipynb", as_version=4)
print([cell.cell_type for cell in made.cells], made.cells[-1].outputs[0].text.strip())
PYTHON
cd "$folder"
venv/bin/python -W ignore ask.py 2>/dev/null > told
cat told
cat > seen <<'TEXT'
nbclient: no error
papermill: PapermillExecutionError
['markdown', 'markdown', 'code', 'code'] went on
TEXT
if cmp -s told seen; then echo "as seen"; else echo "it has changed"; exit 1; fi

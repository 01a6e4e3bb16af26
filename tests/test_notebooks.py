"""Notebooks: each runs from a clean kernel, what it concludes still holds, and git has none of its outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def run(notebook):
    """Run the cells in a kernel of their own; the first one that fails raises."""
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()


@every_notebook
def test_a_notebook_runs_to_its_end_in_silence_and_its_conclusions_hold(path):
    notebook = read(path)
    run(notebook)
    outputs = [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [(cell, output.text) for cell, output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for _, output in outputs), "no picture"


@every_notebook
def test_a_notebook_in_git_has_no_outputs_and_fixed_cells(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), f"{cell.id}: clear all outputs before you commit"


@every_notebook
def test_a_notebook_starts_from_the_question_it_answers(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "?" in first.source


def test_every_notebook_has_its_line_in_the_readme():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in readme] == []


def test_a_conclusion_that_does_not_hold_fails():
    with pytest.raises(CellExecutionError, match=r"AssertionError\S*: two is not less than one"):
        run(new_notebook(cells=[new_code_cell("assert 2 < 1, 'two is not less than one'")]))

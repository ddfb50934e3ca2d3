"""The tutorials run as notebooks, each in a kernel of its own; what they claim they assert themselves."""

from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="the test extra has it")
nbclient = pytest.importorskip("nbclient", reason="the test extra has it")
pytest.importorskip("ipykernel", reason="the test extra has it")

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
TUTORIALS = sorted(path.stem for path in FOLDER.glob("*.py"))
QUIET = {
    "PYTHONWARNINGS": "ignore::DeprecationWarning:ipykernel,ignore::DeprecationWarning:jupyter_client",  # the kernel's own, not ours
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger says on standard error that frozen modules cannot be debugged
    "JAX_PLATFORMS": "cpu",
}


def executed(notebook: object, where: Path) -> object:
    """The notebook with its outputs; a cell that raises raises `CellExecutionError` here."""
    client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(where)}})
    return client.execute()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Jupyter writes of its own goes into a folder of the test."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


def test_there_are_three() -> None:
    assert TUTORIALS == ["1_first_answer", "2_your_own_model_card_and_measurements", "3_differentiating_through_the_model"]


@pytest.mark.parametrize("name", TUTORIALS)
def test_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    notebook = jupytext.read(FOLDER / f"{name}.py")
    ran = executed(notebook, tmp_path)
    said = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in said if output.output_type == "stream" and output.name == "stderr" and "Warning" in output.text]
    assert any(output.output_type == "stream" and output.name == "stdout" for output in said)
    assert sum("assert " in cell.source for cell in ran.cells if cell.cell_type == "code") >= 5
    assert [path for path in tmp_path.iterdir() if path.name.lower() not in {"ipythondir", "jupyter_runtime_dir"}] == []  # nothing is left behind


def test_a_tutorial_that_claims_what_is_not_so_fails(tmp_path: Path) -> None:
    notebook = jupytext.reads("# %%\nvalue = 1\n\n# %%\nassert value == 2\n", fmt="py:percent")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        executed(notebook, tmp_path)


@pytest.mark.parametrize("name", TUTORIALS)
def test_is_kept_as_text(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="py:percent")
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    opened = jupytext.reads(jupytext.writes(notebook, fmt="ipynb"), fmt="ipynb")  # as `jupytext --to notebook` writes it
    assert [(cell.cell_type, cell.source) for cell in opened.cells] == [(cell.cell_type, cell.source) for cell in notebook.cells]

"""Two processes under SLURM's variables: one run, of which the first writes the folder."""

import json

import pytest

from tests.hosts import shared_run_cases as cases
from tests.joined import by_hand, by_slurm, ended, start


def last_lines(main, folder, variables):
    codes, said = ended(start(main, folder, variables, folder / "runs"), folder)
    assert codes == [0] * len(codes), said
    return [json.loads(text.splitlines()[-1]) for text in said]


@pytest.fixture(scope="module")
def found(compilation_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    return last_lines(cases.main, folder, by_slurm([1, 1], compilation_cache)), folder


def test_all_work_in_one_run_and_the_first_alone_writes_its_folder(found):
    (first, second), folder = found
    run = next(path for path in folder.glob("runs/joined/*") if (path / "written by 0").is_file())
    assert first["path"] == first["again"] == str(run)
    assert second["path"].endswith(f"/joined/{run.name}") and not second["path"].startswith(
        str(folder)
    )
    assert second["links"] == first["links"] == str(run / "checkpoints")
    assert not (run / "written by 1").exists()
    assert [one["facts"]["process"] for one in (first, second)] == ["0 of 2", "1 of 2"]
    assert first["facts"]["devices"] == "2 x cpu (cpu)"


def test_what_one_knows_all_know(found):
    for one in found[0]:
        assert (one["same"], one["all"]) == ({"number": 0}, [0, 1])
    assert found[0][0]["broken"] == "ValueError: it is broken"
    assert found[0][1]["broken"].startswith("OtherProcessFailed: process 0 failed: see its message")


def test_all_go_on_with_the_answers_that_the_first_one_has_kept(found):
    assert [one["kept"] for one in found[0]] == [[found[0][0]["kept"][0]]] * 2


def test_each_holds_its_rows_and_reads_all(found):
    rows = [[0, 1], [2, 3], [4, 5], [6, 7]]
    for one, own, columns in zip(found[0], (rows[:2], rows[2:]), ("0246", "1357"), strict=True):
        assert one["arrays"]["own"] == own
        assert one["arrays"]["own columns"] == [[float(value)] for value in columns]
        doubled = [[2 * value for value in row] for row in rows]
        whole = {"rows": doubled, "more": rows, "local": rows, "number": 3}
        assert one["arrays"]["whole"] == whole


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("differ", "parameters or versions of process 1 differ from those of process 0: start all"),
        ("endpoint", "JUDGE is an endpoint, which may answer each process differently: run this"),
        ("flax", "EXPORT_FLAX is written by one process alone: leave it out, and export"),
        ("blind", "process 1 does not see "),
    ],
)
def test_what_cannot_be_done_together_is_refused_in_all(case, message, found):
    for one in found[0]:
        assert one[case].startswith(f"ValueError: {message}")


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([2, 1], "processes have 2, 1 devices: give each as many"),
        ([1, 1, 1], "3 processes have 3 devices, of which the mesh takes 2: start so many"),
    ],
)
def test_processes_that_cannot_share_the_work_are_refused(
    devices, message, compilation_cache, tmp_path
):
    said = last_lines(cases.uneven, tmp_path, by_hand(devices, compilation_cache))
    assert all(one.startswith(f"ValueError: {message}") for one in said), said

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nblib.__main__ import main
from nblib.tools.sweep_grid import plan_sweep, split_values

HEAD = """\
# %% tags=["parameters"]
RATE = 1.0
SEED = 0
NAME = "x"
CURVE = [1.0]
FREE = None
"""


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "toy.py").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLIB_RUNS_DIR", "here")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1e-4, 3e-4", ["1e-4", "3e-4"]),
        ("[0.25,0.5],[1.0]", ["[0.25,0.5]", "[1.0]"]),
        ("[(1,2),{'a': 3}],x", ["[(1,2),{'a': 3}]", "x"]),
        ('["a]","b,\'"],c', ['["a]","b,\'"]', "c"]),
        ("'a,b',\"c\",''", ["a,b", "c", ""]),
        (r"'it\'s, so',C:\new", ["it's, so", r"C:\new"]),
        ("it's,he's", ["it's", "he's"]),
        ("'a'b,c", ["'a'b", "c"]),
    ],
)
def test_a_comma_separates_outside_of_brackets_and_quotes(text, values):
    assert list(split_values("X", text)) == values


@given(st.lists(st.text(), min_size=1))
def test_any_texts_in_quotes_come_back(texts):
    escaped = (text.replace("\\", "\\\\").replace("'", "\\'") for text in texts)
    assert list(split_values("X", ", ".join(f"'{text}'" for text in escaped))) == texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "an empty value") for text in ("", "a,,b", "a,", ",a", " ")),
        *((text, "is missing at the end") for text in ("[a,b", "'a,b", '["a]', "a(b,c")),
        *((text, "closes nothing") for text in ("a]", "(a]", "[a)]")),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(text, said):
    with pytest.raises(ValueError, match=f"^parameter X: .*{said}"):
        split_values("X", text)


def test_the_grid_is_the_product_in_the_order_given(tmp_path):
    planned = plan_sweep("toy", {"RATE": "1,3e-4", "NAME": "'a b'", "SEED": "0,1"})
    assert [cell.number for cell in planned.cells] == [0, 1, 2, 3]
    assert [" ".join(cell.parameters.values()) for cell in planned.cells] == [
        "1 a b 0",
        "1 a b 1",
        "3e-4 a b 0",
        "3e-4 a b 1",
    ]
    arguments = ["run", "toy", "-p", "RATE", "1", "-p", "NAME", "a b", "-p", "SEED", "1"]
    assert planned.cells[1].arguments("toy") == arguments
    assert planned.varied == ("RATE", "SEED")
    assert planned.described(planned.cells[2]) == "cell 2 of 0-3: RATE=3e-4 SEED=0"
    assert planned.folder.parent == tmp_path / "here" / "toy" / "sweeps"
    assert not (tmp_path / "here").exists()


def test_the_same_sweep_has_the_same_folder_and_another_grid_another(tmp_path):
    shutil.copy(tmp_path / "notebooks" / "toy.py", tmp_path / "notebooks" / "other.py")
    paths = ["toy", "notebooks/toy.py", str(tmp_path / "notebooks" / "toy.py")]
    typed = ["0,1", "0, 1", "0,+1", "0x0,'1'"]
    same = {plan_sweep(path, {"SEED": text}).folder.name for path in paths for text in typed}
    grids = [{"SEED": "1,0"}, {"SEED": "0,1", "RATE": "2"}, {"RATE": "0,1"}, {"NAME": "0,1"}]
    others = {plan_sweep("toy", grid).folder.name for grid in grids}
    others.add(plan_sweep("other", {"SEED": "0,1"}).folder.name)
    assert len(same) == 1 and len(same | others) == 6


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"SEDE": "0,1"}, "notebooks/toy.py: unknown parameter SEDE; did you mean SEED"),
        ({"SEED": "0,1.5"}, "parameter SEED takes int (default 0), got float: 1.5"),
        ({"CURVE": "[1.0],2"}, "parameter CURVE takes list"),
        ({"SEED": "0,1,0"}, "parameter SEED: the value 0 is given twice"),
        ({"RATE": "1,1e999"}, "parameter RATE: expected values that JSON has, "),
        ({"FREE": "{1},2"}, "parameter FREE: expected values that JSON has, "),
        ({"RATE": "1e-4,0.0001"}, "the value 0.0001 is given twice, as 1e-4 and 0.0001"),
        ({"SEED": ",".join(map(str, range(1001)))}, "the grid has 1,001 cells, expected at most"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_starts(lists, said, capsys, tmp_path):
    pairs = [part for name, values in lists.items() for part in ("-p", name, values)]
    assert main(["sweep", "toy", *pairs]) == 1
    out, err = capsys.readouterr()
    assert out == "" and said in err
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-p", "SEED", "0", "-p", "SEED", "1"],
        ["-p", "SEED", "0,1", "--gpus", "0,0"],
        ["-p", "SEED", "0,1", "--gpus", "0,"],
        ["-p", "SEED", "0,1", "--cell", "2"],
        ["-p", "SEED", "0,1", "--slurm", "--gpus", "0"],
    ],
)
def test_a_wrong_command_exits_with_2(arguments, capsys, tmp_path):
    assert main(["sweep", "toy", *arguments]) == 2
    assert capsys.readouterr().out == "" and not (tmp_path / "here").exists()


def test_a_value_that_breaks_lines_is_named_in_one():
    planned = plan_sweep("toy", {"NAME": "'a\nrm',\"\",c d"})
    described = [planned.described(cell).partition(": ")[2] for cell in planned.cells]
    assert described == ['NAME="a\\nrm"', 'NAME=""', 'NAME="c d"']

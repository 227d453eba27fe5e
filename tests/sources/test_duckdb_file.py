import pytest

from nblib.sources.duckdb_file import json_value, open_tables, write_table
from nblib.sources.rows import SourceError

duckdb = pytest.importorskip("duckdb")
COLUMNS = {"id": "VARCHAR", "value": "JSON", "count": "BIGINT"}
ROWS = [
    {"id": "b", "value": {"x": [1, None, "é"]}, "count": 2},
    {"id": "a", "value": "YES", "count": None},
    {"id": 'say "hi"\n', "value": None, "count": 2**40},
]


def test_a_table_that_is_written_is_read_again_in_its_order(tmp_path):
    path = tmp_path / "made.duckdb"
    write_table(path, "answers", COLUMNS, ROWS)
    with open_tables(path) as tables:
        (table,) = tables.values()
        assert (table.name, dict(table.kinds), table.count()) == ("answers", COLUMNS, 3)
        rows = list(table.read([*COLUMNS, "missing"]))
        assert [one["id"] for one in table.read(["id"], order="id")] == ["a", "b", 'say "hi"\n']
    assert [row | {"value": json_value(row["value"])} for row in rows] == ROWS
    assert [one.name for one in tmp_path.iterdir()] == ["made.duckdb"]


def test_many_rows_come_in_the_order_in_which_they_were_written(tmp_path):
    path = tmp_path / "made.duckdb"
    write_table(path, "t", {"n": "BIGINT"}, ({"n": n * 7919 % 5000} for n in range(5000)))
    with open_tables(path) as tables:
        found = [one["n"] for one in tables["t"].read(["n"])]
    assert found == [n * 7919 % 5000 for n in range(5000)]


def test_what_cannot_be_written_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "made.duckdb"
    write_table(path, "t", {"n": "BIGINT"}, [{"n": 1}])
    before = path.read_bytes()
    with pytest.raises(SourceError, match=r"made\.duckdb cannot be written: "):
        write_table(path, "t", {"n": "BIGINT"}, [{"n": 1}, {"n": "many"}])
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["made.duckdb"]

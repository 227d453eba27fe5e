import json

import pytest

from nblib.sources.pages_table import open_pages
from nblib.sources.rows import SourceError

ROWS = [
    {"id": 1, "task": "product", "html": "<h1>Mug</h1>"},
    {"id": "b", "task": "product", "prompt_text": "Read.\n\nMug", "slot_specs": {"a": {}}},
    {"id": None, "task": "news", "html": None, "system_prompt": "Be brief.", "slot_specs": {}},
]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    with open_pages(path) as pages:
        rows = list(pages)
        assert pages.count == len(rows)
        assert [row.number for row in rows] == list(range(len(rows)))
        return [(r.id, r.task, r.html, r.prompt_text, r.slot_specs, r.system_prompt) for r in rows]


EXPECTED = [
    ("1", "product", "<h1>Mug</h1>", "", None, ""),
    ("b", "product", "", "Read.\n\nMug", {"a": {}}, ""),
    ("", "news", "", "", None, "Be brief."),
]


def test_pages_of_json_lines(tmp_path):
    assert read(write_lines(tmp_path / "pages.jsonl", ROWS)) == EXPECTED


@pytest.mark.parametrize("kind", ["JSON", "VARCHAR"])
def test_pages_of_a_table_in_the_order_in_which_they_were_written(kind, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "pages.duckdb"
    names = ("id", "task", "html", "prompt_text", "slot_specs", "system_prompt")
    with duckdb.connect(str(path)) as database:
        database.execute("create table examples (id VARCHAR)")  # `pages` goes before it
        database.execute(f"create table pages ({' VARCHAR, '.join(names[:4])} VARCHAR)")
        database.execute(f"alter table pages add column slot_specs {kind}")
        database.execute("alter table pages add column system_prompt VARCHAR")
        for row in ROWS:
            values = [row.get(name) for name in names]
            values[4] = json.dumps(values[4]) if values[4] is not None else None
            database.execute("insert into pages values (?, ?, ?, ?, ?, ?)", values)
    assert read(path) == EXPECTED


def test_a_table_of_structs_has_the_slots_of_its_own_rows(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "pages.duckdb"
    specs = [{"a": {"type": "string"}}, {"b": {"type": "number", "nullable": False}}]
    rows = [{"id": n, "task": "t", "html": "x", "slot_specs": one} for n, one in enumerate(specs)]
    lines = write_lines(tmp_path / "pages.jsonl", rows)
    with duckdb.connect(str(path)) as database:
        database.execute(f"create table examples as select * from read_json_auto('{lines}')")
    assert [row[4] for row in read(path)] == specs


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("create table shops (id VARCHAR)", "has no table 'pages' or 'examples'; .* are: shops"),
        ("create table pages (id VARCHAR, html VARCHAR)", "table pages: lacks task"),
        ("create table pages (id VARCHAR, task VARCHAR)", "table pages: lacks html"),
    ],
)
def test_a_database_without_pages_says_what_it_has(statement, problem, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "pages.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute(statement)
    with pytest.raises(SourceError, match=problem):
        read(path)


def test_what_cannot_be_read_is_said_before_the_first_page(tmp_path):
    path = write_lines(tmp_path / "pages.jsonl", ROWS)
    path.write_text(path.read_text() + "{")
    with pytest.raises(ValueError, match="line 4: expected a JSON object"), open_pages(path):
        pass
    for row, problem in (({"id": 1}, "lacks task"), ({"id": 1, "task": "t"}, "lacks html")):
        with pytest.raises(ValueError, match=f"pages.jsonl line 1: {problem}"):
            read(write_lines(path, [row]))
    for name, problem in (("no.jsonl", "is missing"), ("pages.csv", "ends in one of .duckdb")):
        with pytest.raises(SourceError, match=problem):
            read(tmp_path / name)

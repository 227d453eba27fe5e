"""Tables of examples as users bring them: any DuckDB, JSON Lines, and what is no table."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nblib.sources.datasets import get_dataset
from nblib.sources.examples_table import from_examples
from nblib.sources.rows import SourceError
from nblib.tasks.extraction_rows import normalise_extractions

SPECS = {"name": {"type": "string", "nullable": False}, "price": {"type": "number"}}
COLUMNS = ("id", "task", "prompt_text", "response_strong", "metadata", "slot_specs")
OPEN_FOR_WRITING = """
import sys, duckdb
database = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


SPLITS = ("train", "test")


def product(n, **changes):
    """A row of its own domain; every third one is held out by its publisher."""
    return {
        "id": f"shop/{n}",
        "task": "product",
        "prompt_text": f"Read it.\n\n<h1>Mug {n}</h1><p>{n * 37},50 &euro;</p>",
        "response_strong": {"name": f"Mug {n}", "price": n * 37 + 0.5},
        "metadata": {"domain": f"shop{n}.example", "split": "test" if n % 3 == 0 else "train"},
        "slot_specs": SPECS,
        **changes,
    }


ROWS = [product(n) for n in range(1, 10)]


@pytest.fixture
def write(tmp_path):
    """Write rows into the table `examples` of a file: `write(rows, metadata="JSON")`."""
    duckdb = pytest.importorskip("duckdb")

    def build(rows, *more, name="pages.duckdb", columns=COLUMNS, **kinds):
        path = tmp_path / name
        with duckdb.connect(str(path)) as database:
            kinds = {one: kinds.get(one, "VARCHAR") for one in columns}
            database.execute(f"create table examples ({', '.join(map(' '.join, kinds.items()))})")
            values = [[as_text(row.get(column)) for column in columns] for row in rows]
            if values:
                marks = ", ".join("?" * len(columns))
                database.executemany(f"insert into examples values ({marks})", values)
            for statement in more:
                database.execute(statement)
        return str(path)

    return build


def as_text(value):
    return json.dumps(value) if isinstance(value, dict) else value


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def content(data):
    """What must not depend on the kind of file."""
    rows = {split: [(r.id, r.group, r.fields) for r in getattr(data, split)] for split in SPLITS}
    return rows, data.sha256, data.notes


def ids(rows):
    return sorted(row.id for row in rows)


def test_rows_of_a_table(write):
    data = from_examples(write(ROWS, metadata="JSON", slot_specs="JSON"))
    assert ids(data.test) == ["shop/3", "shop/6", "shop/9"]
    assert len(data.train) == 6 and data.notes == ()
    first = next(row for row in data.train if row.id == "shop/1")
    assert (first.id, first.group, first.place) == ("shop/1", "product", "")
    assert first.fields == {
        "prompt": "Read it.\n\nMug 1\n37,50 €",
        "html": "Read it.\n\n<h1>Mug 1</h1><p>37,50 &euro;</p>",
        "response": {"name": "Mug 1", "price": 37.5},
        "slot_specs": SPECS,
        "system_prompt": None,
    }
    assert data.origin == (
        "9 rows of pages.duckdb, table examples, schema 1 (id VARCHAR, task VARCHAR, "
        "prompt_text VARCHAR, response_strong VARCHAR, slot_specs JSON, metadata JSON)"
    )


def test_the_same_rows_as_json_lines_are_the_same_data(write, tmp_path):
    table, lines = from_examples(write(ROWS)), write_lines(tmp_path / "pages.jsonl", ROWS)
    read = get_dataset(lines, task="extraction")
    assert content(read) == content(table)
    assert {row.id: row.place for row in read.train}["shop/1"] == "pages.jsonl line 1"
    assert read.origin == "9 rows of pages.jsonl, schema 1"
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(lines).read_bytes()))
    assert content(from_examples(str(packed))) == content(table)


@pytest.mark.parametrize(
    "kinds",
    [
        {"metadata": "VARCHAR", "slot_specs": "VARCHAR"},
        {"metadata": "JSON", "slot_specs": "JSON", "response_strong": "JSON"},
        {"metadata": "MAP(VARCHAR, VARCHAR)"},
        {"metadata": "STRUCT(domain VARCHAR, split VARCHAR)"},
        {"slot_specs": "MAP(VARCHAR, JSON)"},
        {
            "response_strong": 'STRUCT("name" VARCHAR, price DOUBLE)',
            "slot_specs": (
                'STRUCT("name" STRUCT("type" VARCHAR, nullable BOOLEAN), '
                'price STRUCT("type" VARCHAR))'
            ),
        },
    ],
    ids=lambda kinds: ", ".join(kind.partition("(")[0] for kind in kinds.values()),
)
def test_columns_of_other_types_hold_the_same(kinds, write, tmp_path):
    lines = write_lines(tmp_path / "pages.jsonl", ROWS)
    path = write([], f"insert into examples select {_cast(kinds)} from '{lines}'", **kinds)
    assert content(from_examples(path)) == content(from_examples(lines))


def _cast(kinds):
    """Return what selects the columns of a file of JSON Lines as they are."""
    return ", ".join(
        f"json({one})::{kinds[one]}"
        if one in kinds
        else f"{one}::VARCHAR"
        if one in ("id", "task", "prompt_text")
        else f"to_json({one})::VARCHAR"
        for one in COLUMNS
    )


def test_json_that_was_written_as_json_twice(write):
    columns = ("metadata", "slot_specs", "response_strong")
    twice = [{**row, **{one: json.dumps(json.dumps(row[one])) for one in columns}} for row in ROWS]
    kinds = {"metadata": "JSON", "slot_specs": "JSON"}
    assert content(from_examples(write(twice, **kinds))) == content(
        from_examples(write(ROWS, name="once.duckdb", **kinds))
    )


def test_a_table_that_duckdb_made_of_json_lines_has_no_slots_of_other_kinds_of_pages(
    write, tmp_path
):
    """Each STRUCT has the keys of all rows; those of other rows are null in it."""
    news = {
        "task": "news",
        "response_strong": {"title": None, "tags": ["a"]},
        "slot_specs": {
            "title": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        },
    }
    rows = [*ROWS, *(product(n, prompt_text=f"Title {n}?", **news) for n in range(11, 17))]
    lines = write_lines(tmp_path / "pages.jsonl", rows)
    made = f"create table examples as select * from read_json_auto('{lines}')"
    path = write([], "drop table examples", made)
    data, expected = from_examples(path), from_examples(lines)
    assert "slot_specs STRUCT, metadata STRUCT" in data.origin
    assert content(data) == content(expected)
    answers = [row.fields["response"] for row in data.train if row.group == "news"]
    assert answers and all(answer == news["response_strong"] for answer in answers)


def test_null_is_no_metadata_and_the_column_may_be_missing(write, tmp_path):
    rows = [product(n, metadata=None) for n in range(1, 10)]
    data = from_examples(write(rows))
    assert len(data.test) == 1 and len(data.train) == 8
    bare = [{key: one for key, one in row.items() if key != "metadata"} for row in rows]
    lines = write_lines(tmp_path / "pages.jsonl", bare)
    assert content(from_examples(lines)) == content(data)


@pytest.mark.parametrize("metadata", ["train", "[1]", '{"split": "train"'])
def test_metadata_that_cannot_be_read_is_refused_for_it_says_the_split(metadata, write):
    with pytest.raises(ValueError, match=r"pages.duckdb: row shop/2: metadata is .*JSON object"):
        from_examples(write([*ROWS[:1], product(2, metadata=metadata)]))


def test_a_row_without_an_id_or_a_task_is_refused(write):
    for column in ("id", "task"):
        path = write([*ROWS, product(2, **{column: None})], name=f"{column}.duckdb")
        with pytest.raises(ValueError, match=f"its {column} is empty; each row needs one"):
            from_examples(path)


def test_numbers_as_ids_and_tasks(write):
    rows = [{**row, "id": n, "task": 7} for n, row in enumerate(ROWS)]
    data = from_examples(write(rows, id="INTEGER", task="INTEGER"), slugs=["7"])
    assert ids(data.test) == ["2", "5", "8"]
    assert {row.group for row in data.train} == {"7"}


def test_a_row_without_a_prompt_is_there_for_the_task_to_refuse(write):
    data = from_examples(write([*ROWS, product(10, prompt_text=None)]))
    assert {row.id: row.fields["prompt"] for row in data.train}["shop/10"] == ""


@pytest.mark.parametrize("answer", ["YES", '"YES"', " YES\n", '"\\"YES\\""'])
def test_an_answer_of_one_word(answer, write):
    rows = [*ROWS, product(10, response_strong=answer)]
    fields = {row.id: row.fields for row in from_examples(write(rows)).train}
    assert fields["shop/10"]["response"] == "YES"


# ----------------------------------------------------------------- system prompts


def test_a_system_prompt_is_the_rows_own_or_of_its_metadata_or_of_its_task(write):
    metadata = {"split": "train", "system_prompt": "of metadata"}
    rows = [
        product(1, system_prompt="of the row", metadata=metadata),
        product(2, metadata=metadata),
        product(4, metadata={"split": "train"}),
        product(5, task="other", metadata={"split": "train"}),
        product(3),
    ]
    path = write(
        rows,
        "create table tasks as select 'product' as task, 'of the task' as system_prompt, 1 as n",
        "insert into tasks values ('product', 'of the task', 2), ('other', null, 3)",
        columns=(*COLUMNS, "system_prompt"),
    )
    data = from_examples(path)
    asked = {row.id: row.fields["system_prompt"] for row in (*data.train, *data.test)}
    assert asked == {
        "shop/1": "of the row",
        "shop/2": "of metadata",
        "shop/3": "of the task",
        "shop/4": "of the task",
        "shop/5": None,
    }


def test_a_table_of_tasks_that_cannot_be_read_is_no_silence(write):
    path = write(ROWS, "create table tasks (slug VARCHAR)")
    with pytest.raises(SourceError, match="table tasks: lacks task, system_prompt; it has slug"):
        from_examples(path)


def test_two_system_prompts_of_one_task_are_refused(write):
    more = ["create table tasks (task VARCHAR, system_prompt VARCHAR)"]
    more += ["insert into tasks values ('product', 'a'), ('product', 'b'), ('other', 'c')"]
    with pytest.raises(SourceError, match="table tasks: several system prompts for 'product'"):
        from_examples(write(ROWS, *more))


# ----------------------------------------------------------------- slugs, ids


def test_only_the_rows_of_the_slugs_are_read(write):
    rows = [*ROWS, *(product(n, task="news") for n in range(21, 27))]
    path = write(rows)
    data = get_dataset(path, task="extraction", slugs=("news",))
    assert {row.group for row in (*data.train, *data.test)} == {"news"}
    assert data.origin.startswith("6 rows of pages.duckdb")
    assert len(get_dataset(path, task="extraction").train) == 10


def test_an_unknown_slug_is_named_with_those_that_there_are(write):
    with pytest.raises(ValueError, match=r"TASKS 'news': pages.duckdb has no such rows, only"):
        from_examples(write(ROWS), slugs=["product", "news"])
    many = [product(n, task=f"t{n:02}") for n in range(1, 40)]
    with pytest.raises(ValueError, match=r"only those of t01, .*t20, \.\.\.$"):
        from_examples(write(many, name="many.duckdb"), slugs=["news"])


def test_an_id_that_repeats_is_left_out_and_named(write):
    rows = [*ROWS, product(5, prompt_text="Another.")]
    data = from_examples(write(rows))
    assert Counter(row.id for row in (*data.train, *data.test)).most_common(1)[0][1] == 1
    assert data.notes == ("1 rows left out whose id was there before, such as shop/5",)
    backwards = from_examples(write(rows[::-1], name="backwards.duckdb"))
    assert content(backwards) == content(data)  # which one is kept is no chance


def test_a_file_without_a_row_to_test_on_says_why(write):
    rows = [product(n, metadata={"split": "train"}) for n in range(1, 4)]
    with pytest.raises(ValueError, match="no row for the split 'test': all 3 rows are for"):
        from_examples(write(rows))
    with pytest.raises(SourceError, match="has no rows: expected a DuckDB file with a table"):
        from_examples(write([], name="none.duckdb"))


# ----------------------------------------------------------------- files that are no table


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(SourceError, match=r"a\.duckdb is missing: expected a DuckDB file"):
        from_examples(str(tmp_path / "a.duckdb"))
    with pytest.raises(SourceError, match=r"a\.jsonl is missing: expected a file of JSON Lines"):
        from_examples(str(tmp_path / "a.jsonl"))
    (tmp_path / "b.duckdb").mkdir()
    with pytest.raises(SourceError, match=r"b\.duckdb is a folder: expected a DuckDB file"):
        from_examples(str(tmp_path / "b.duckdb"))


@pytest.mark.parametrize("start", [b"", b"hello", b"PK\x03\x04" * 100, b"SQLite format 3\x00" * 64])
def test_what_is_no_database_is_refused_at_once(start, tmp_path):
    """duckdb would ask the network for an extension that reads a file of SQLite."""
    pytest.importorskip("duckdb")
    path = tmp_path / "a.duckdb"
    path.write_bytes(start)
    with pytest.raises(SourceError, match=r"a\.duckdb is no DuckDB file, or a damaged one"):
        from_examples(str(path))


@pytest.mark.parametrize("size", [100, 5000, 13_000])
def test_half_a_database_is_one_line(size, write, tmp_path):
    whole = Path(write(ROWS)).read_bytes()
    path = tmp_path / "half.duckdb"
    path.write_bytes(whole[:size])
    with pytest.raises(SourceError, match=r"half\.duckdb cannot be read: .* enough") as raised:
        from_examples(str(path))
    assert "\n" not in str(raised.value)


def test_a_file_that_another_program_has_open_for_writing(write):
    path = write(ROWS)
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_FOR_WRITING, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(SourceError) as raised:
            from_examples(path)
        other.stdin.close()
        assert other.wait(timeout=60) == 0
    said = f"(PID {other.pid}). Another program has it open for writing: close it there first"
    assert str(raised.value).endswith(said)
    assert "\n" not in str(raised.value)
    assert len(from_examples(path).train) == 6  # and now it is free


def test_a_file_that_the_notebook_itself_has_open_for_writing(write):
    import duckdb

    path = write(ROWS)
    with (
        duckdb.connect(path),
        pytest.raises(SourceError, match=r"This program has it open for writing: close that"),
    ):
        from_examples(path)
    with duckdb.connect(path, read_only=True):
        assert len(from_examples(path).train) == 6


def test_no_table_of_examples(write):
    with pytest.raises(SourceError, match="has no table 'examples'; its tables are: pages, shops"):
        from_examples(
            write(ROWS, "alter table examples rename to pages", "create table shops (id INTEGER)")
        )
    with pytest.raises(SourceError, match="its tables are: none"):
        from_examples(write([], "drop table examples", name="none.duckdb"))


def test_a_table_of_an_older_schema(write):
    with pytest.raises(SourceError) as raised:
        from_examples(write(ROWS, columns=("id", "task", "prompt_text", "metadata")))
    assert str(raised.value) == (
        "pages.duckdb, table examples: lacks response_strong, slot_specs; it has id, task, "
        "prompt_text, metadata; expected id, task, prompt_text, response_strong, slot_specs"
    )


def test_a_view_is_read_as_a_table_is(write):
    view = "create view examples as select 1 as n, * from pages where id <> 'shop/9'"
    data = from_examples(write(ROWS, "alter table examples rename to pages", view))
    assert len(data.train) == 6 and ids(data.test) == ["shop/3", "shop/6"]


def test_a_view_of_what_is_gone_is_one_line(write, tmp_path):
    lines = tmp_path / "pages.jsonl"
    write_lines(lines, ROWS)
    view = f"create view examples as select * from '{lines}'"
    path = write([], "drop table examples", view)
    assert len(from_examples(path).train) == 6
    lines.unlink()
    with pytest.raises(SourceError, match=r"pages\.duckdb cannot be read: .*pages\.jsonl"):
        from_examples(path)


def test_the_file_is_only_read(write, tmp_path):
    path = Path(write(ROWS))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    before = path.read_bytes(), path.stat().st_mtime_ns
    from_examples(str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [one.name for one in tmp_path.iterdir()] == ["pages.duckdb"]


def test_a_name_with_signs_and_a_home_folder(write, tmp_path, monkeypatch):
    Path(write(ROWS)).rename(tmp_path / "it's naïve; --.duckdb")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(from_examples("~/it's naïve; --.duckdb").train) == 6
    with pytest.raises(SourceError, match="is missing"):
        from_examples("~nobody-of-that-name/a.duckdb")


def test_without_duckdb_the_line_says_what_to_install(monkeypatch, tmp_path):
    path = tmp_path / "a.duckdb"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(SourceError) as raised:
        from_examples(str(path))
    assert str(raised.value) == (
        "a.duckdb needs the package duckdb: pip install 'nblib[extraction]', or give the rows as a "
        ".jsonl file"
    )
    lines = write_lines(tmp_path / "a.jsonl", ROWS)  # which needs no duckdb
    assert len(from_examples(lines).train) == 6


# ----------------------------------------------------------------- broken lines


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": "a"', "line 3: expected a JSON object, "),
        (b"[1]", "line 3: expected a JSON object, got [1]"),
        (b"null", "line 3: expected a JSON object, got None"),
        (b"\xff\xfe", "line 3: expected a JSON object, "),
        (b'{"id": "a", "id": "b"}', "line 3: expected a JSON object, the key 'id' is given twice"),
        (b'{"id": "a", "task": "b"}', "line 3: lacks prompt_text, response_strong, slot_specs; it"),
        (b"{}", "line 3: lacks id, task, "),
        (json.dumps(product(1, id=None)).encode(), "line 3: its id is empty"),
        (json.dumps(product(2, prompt_text=[1])).encode(), "line 3: prompt_text is [1], expected"),
        (json.dumps(product(2, metadata="x")).encode(), "line 3: metadata is 'x', expected"),
        (
            json.dumps(product(2, metadata={"split": "fold 3"})).encode(),
            "line 3 (shop/2): split is 'fold 3', expected one of train, training, test, ",
        ),
    ],
)
def test_a_broken_line_is_named(line, problem, tmp_path):
    path = tmp_path / "pages.jsonl"
    path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(ValueError, match=r"pages\.jsonl") as raised:
        from_examples(str(path))
    assert problem in str(raised.value)


def test_an_empty_file_and_half_a_packed_one(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n \n")
    with pytest.raises(SourceError, match=r"none\.jsonl has no rows: expected a file of JSON"):
        from_examples(str(tmp_path / "none.jsonl"))
    lines = write_lines(tmp_path / "pages.jsonl", ROWS)
    (tmp_path / "half.jsonl.gz").write_bytes(gzip.compress(Path(lines).read_bytes())[:-20])
    with pytest.raises(ValueError, match=r"half\.jsonl\.gz is no whole gzip file: .*copy it again"):
        from_examples(str(tmp_path / "half.jsonl.gz"))


def test_half_a_character_does_not_end_the_reading(tmp_path):
    rows = [*ROWS, product(10, prompt_text="Mug \ud800 <p>x</p>", response_strong='"\ud800"')]
    data = from_examples(write_lines(tmp_path / "pages.jsonl", rows))
    assert len(data.train) == 7


# ----------------------------------------------------------------- the real file


@pytest.fixture(scope="module")
def published():
    folder = os.environ.get("NBLIB_EXTRACTION_DIR")
    if not folder:
        pytest.skip("NBLIB_EXTRACTION_DIR is not set: the repository does not hold dataset.duckdb")
    pytest.importorskip("duckdb")
    path = Path(folder) / "dataset.duckdb"
    before = path.stat().st_mtime_ns
    data = get_dataset(str(path), task="extraction")
    assert path.stat().st_mtime_ns == before
    return data


def test_the_real_file_keeps_its_publishers_splits(published):
    test = Counter(row.group for row in published.test)
    assert test == {"utterance_slots": 700, "booking_slots": 3731, "price_string": 178}
    assert 26_400 < len(published.train) + len(published.test) < 27_160
    parted = [row.id.split("/")[1] for row in published.test if row.group != "price_string"]
    assert {*parted} == {"validate"}


def test_of_the_real_file_what_repeats_a_test_row_is_left_out(published):
    form = r"train: (\d+) rows left out that repeat a test row (\w+), such as \S+ \(test row \S+\)"
    named = filter(None, (re.fullmatch(form, note) for note in published.notes))
    left_out = {one[2]: int(one[1]) for one in named}
    assert 300 < left_out["exactly"] < 500 and 100 < left_out["nearly"] < 300
    assert not any(note.startswith("overlap") for note in published.notes)


def test_every_row_of_the_real_file_fits_its_slots(published):
    for rows in (published.train, published.test):
        checked = normalise_extractions(rows)
        assert checked.refused == () and len(checked.rows) == len(rows)

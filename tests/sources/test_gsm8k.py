import json

import pytest

from nblib.sources import gsm8k
from nblib.sources.gsm8k import find_attached, from_folder
from nblib.sources.rows import SourceError
from nblib.tasks.gsm8k import GSM8K

EGGS = {"question": "2 hens, 3 eggs each. Eggs?", "answer": "2*3 = <<2*3=6>>6\n#### 6"}
PENS = {"question": "5 pens, 1 is lost. Pens?", "answer": "5-1 = <<5-1=4>>4\n#### 4"}


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch, tmp_path):
    monkeypatch.delenv("NBLIB_GSM8K_DIR", raising=False)
    monkeypatch.setattr(gsm8k, "KAGGLE_INPUT", tmp_path / "nothing attached")


def write_jsonl(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", EGGS, PENS)
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", PENS)
    return tmp_path / "gsm8k"


def test_rows_of_a_folder(folder):
    loaded = from_folder(str(folder))
    assert loaded.origin == f"folder {folder}"
    assert [row.id for row in loaded.train] == ["gsm8k/train/0", "gsm8k/train/1"]
    assert [row.fields for row in loaded.train] == [EGGS, PENS]
    assert [row.place for row in loaded.train] == [f"{folder}/train.jsonl line {n}" for n in (1, 2)]
    assert [(row.id, row.fields, row.group) for row in loaded.test] == [("gsm8k/test/0", PENS, "")]


def test_argument_then_variable_then_attached(folder, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "input" / "owner" / "slug" / "train.jsonl", EGGS)
    write_jsonl(tmp_path / "input" / "owner" / "slug" / "test.jsonl", PENS)
    monkeypatch.setattr(gsm8k, "KAGGLE_INPUT", tmp_path / "input")
    assert from_folder().origin == f"folder {tmp_path}/input/owner/slug"
    monkeypatch.setenv("NBLIB_GSM8K_DIR", str(folder))
    assert from_folder().origin == f"folder {folder}"
    assert from_folder(str(tmp_path / "input/owner/slug")).origin != f"folder {folder}"


def test_without_any_folder_the_variable_is_named():
    with pytest.raises(SourceError, match="NBLIB_GSM8K_DIR is not set"):
        from_folder()


def test_missing_folder(tmp_path):
    with pytest.raises(SourceError, match=r"the folder .*/absent does not exist"):
        from_folder(str(tmp_path / "absent"))


def test_empty_folder(tmp_path):
    with pytest.raises(SourceError, match=r"is empty, expected \(train.jsonl and test.jsonl\)"):
        from_folder(str(tmp_path))


def test_folder_that_is_a_file(folder):
    with pytest.raises(SourceError, match="cannot be read: NotADirectoryError"):
        from_folder(str(folder / "train.jsonl"))


def test_missing_split_says_what_is_there(folder):
    (folder / "test.jsonl").unlink()
    with pytest.raises(SourceError, match=r"holds train.jsonl; expected \(train.jsonl and test"):
        from_folder(str(folder))


def test_unreadable_file(folder):
    (folder / "test.jsonl").unlink()
    (folder / "test.jsonl").mkdir()
    with pytest.raises(SourceError, match=r"test.jsonl cannot be read: IsADirectoryError"):
        from_folder(str(folder))


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_file_cut_in_the_middle_of_a_line(folder, cut):
    whole = (folder / "train.jsonl").read_bytes().rstrip(b"\n")
    (folder / "train.jsonl").write_bytes(whole[:-cut])
    with pytest.raises(ValueError, match=r"train.jsonl line 2: the file ends in the middle of"):
        from_folder(str(folder))


def test_last_line_needs_no_line_end(folder):
    path = folder / "train.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(from_folder(str(folder)).train) == 2


def test_windows_line_ends_and_byte_order_mark_are_no_content(folder):
    before = from_folder(str(folder))
    path = folder / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert from_folder(str(folder)) == before


def test_a_line_separator_inside_a_question_is_no_new_line(folder):
    odd = {**EGGS, "question": "2 hens.\u2028How many eggs?"}
    (folder / "train.jsonl").write_text(json.dumps(odd, ensure_ascii=False), encoding="utf-8")
    assert from_folder(str(folder)).train[0].fields == odd


GOOD = json.dumps(EGGS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train.jsonl is empty, expected one row a line"),
        (b"\n \n", r"train.jsonl is empty"),
        (f"{GOOD}\n{{'question'}}\n{GOOD}\n".encode(), r"train.jsonl line 2: not JSON"),
        (f"{GOOD}\n\n{GOOD}\n".encode(), r"train.jsonl line 2: not JSON"),
        (b'{"question": "a", "question": "b"}', r"line 1: not JSON .*'question' is given twice"),
        (b"[" * 100_000 + b"\n", r"train.jsonl line 1: not JSON"),
        (f"{GOOD}\n[1]\n".encode(), r"line 2: expected an object .*, got list"),
        (b'{"question": "Eggs?"}\n', r"line 1: the key 'answer' is missing, .* keys: question"),
        (b'{"question": 5, "answer": "#### 5"}\n', r"line 1: 'question' is 5, expected a text"),
        (f"{GOOD}\n".encode() + b'{"question": "\xff"}\n', r"train.jsonl line 2: .* UTF-8"),
    ],
)
def test_broken_content_names_file_and_line(folder, content, message):
    (folder / "train.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        from_folder(str(folder))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"question": "<end_of_turn>\nmodel"}, r"'<end_of_turn>' in its question is no text but"),
        ({"question": ""}, "the prompt is empty"),
        ({"answer": "5"}, "no '####'"),
    ],
)
def test_a_row_that_no_task_can_ask_is_named_by_file_and_line(folder, broken, message):
    write_jsonl(folder / "train.jsonl", EGGS, {**PENS, **broken})
    with pytest.raises(ValueError, match=rf"train.jsonl line 2 \(gsm8k/train/1\): {message}"):
        GSM8K.examples(from_folder(str(folder)).train)


def write_csv(folder):
    folder.mkdir(parents=True)
    text = 'question,answer\n"2 hens, 3 eggs each. Eggs?","2*3 = <<2*3=6>>6\n#### 6"\n'
    (folder / "main_train.csv").write_text(text + '"Say ""4"".","#### 4"\n', encoding="utf-8")
    (folder / "main_test.csv").write_text(text, encoding="utf-8")


def test_csv_layout_of_kaggle(tmp_path):
    write_csv(tmp_path / "csv")
    loaded = from_folder(str(tmp_path / "csv"))
    assert [row.fields["question"] for row in loaded.train] == [EGGS["question"], 'Say "4".']
    assert [row.place.split("/")[-1] for row in loaded.train] == [
        *("main_train.csv line 2", "main_train.csv line 4")
    ]
    assert loaded.test[0].fields["answer"] == EGGS["answer"]


def test_broken_csv_names_file_and_line(tmp_path):
    write_csv(tmp_path / "csv")
    path = tmp_path / "csv" / "main_train.csv"
    path.write_text(path.read_text() + '"cut\noff', encoding="utf-8")
    with pytest.raises(ValueError, match=r"main_train.csv line 5: not CSV"):
        from_folder(str(tmp_path / "csv"))


def test_csv_row_without_answer_names_file_and_line(tmp_path):
    write_csv(tmp_path / "csv")
    path = tmp_path / "csv" / "main_test.csv"
    path.write_text(path.read_text() + "only a question\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"main_test.csv line 4: 'answer' is None"):
        from_folder(str(tmp_path / "csv"))


def test_attached_files_count_by_content_not_by_path(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        write_jsonl(tmp_path / "a-other-dataset" / name, {"text": "not word problems"})
        write_jsonl(tmp_path / "datasets" / "owner" / "slug" / "data" / name, EGGS)
    assert find_attached(tmp_path) == tmp_path / "datasets" / "owner" / "slug" / "data"


@pytest.mark.parametrize("parts", ["", "absent"])
def test_nothing_attached(tmp_path, parts):
    write_jsonl(tmp_path / "slug" / "train.jsonl", EGGS)  # no test.jsonl beside it
    assert find_attached(tmp_path / parts) is None


def test_other_content_than_the_published_is_one_note_a_split(folder):
    notes = from_folder(str(folder)).notes[:2]
    assert notes[0].startswith("train is not the published data: 2 rows, content sha256 ")
    assert notes[1].endswith(f"expected {gsm8k.PUBLISHED_SHA256['test']}")


def test_published_files_are_read_whole_and_recognised(published_gsm8k):
    loaded = from_folder(str(published_gsm8k))
    assert (len(loaded.train), len(loaded.test)) == (7473, 1319)
    assert loaded.notes == ()
    assert loaded.train[0].fields["answer"].endswith("#### 72")
    assert loaded.test[17].id == "gsm8k/test/17"


def test_one_changed_character_of_the_published_files_is_noted(tmp_path, published_gsm8k):
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_bytes((published_gsm8k / name).read_bytes())
    content = (tmp_path / "test.jsonl").read_bytes()
    (tmp_path / "test.jsonl").write_bytes(content.replace(b"ducks", b"Ducks", 1))
    notes = from_folder(str(tmp_path)).notes
    assert [note.split(":")[0] for note in notes] == ["test is not the published data"]

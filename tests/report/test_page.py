import base64
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import nblib.files
from nblib.evaluation.comparison import compare_stages
from nblib.files import read_jsonl
from nblib.report.page import Page, finish, marked, write_page
from nblib.report.samples import rollout_table
from nblib.report.tables import Table, stage_table, visible
from nblib.report.verdicts import Verdict
from nblib.runs import start_run
from nblib.tasks.gsm8k import GSM8K
from nblib.training.session import Trained

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></pre></article>\x00\x1b[31m"
    "\u202e81\u200b\ud800{{ 7 * 7 }}"
)
TUNED = "<reasoning>\n2 + 2 = 4\n</reasoning>\n<answer>4</answer>"


class Browser(HTMLParser):
    """Tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.pieces = [], [], []
        self.feed(html)
        self.text = "".join(self.pieces)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.pieces.append(data)


def changed(stage, **fields):
    """Return a stage with fields of its only record replaced."""
    (record,) = stage.records
    return replace(stage, records=({**record, **fields},))


@pytest.fixture(scope="module")
def base(word_stage):
    return word_stage("base", ["#### 4"], truncated=True)


@pytest.fixture(scope="module")
def tuned(word_stage):
    return word_stage("tuned", [TUNED])


@pytest.fixture
def written(tmp_path, base, tuned):
    """Write a page and return it as text; what is given replaces a part of it."""

    def write(*tables, task=GSM8K, title="A run", stages=(base, tuned), samples=(), **changes):
        page = Page(title=title, task=task, seed=0)
        page.table(stage_table(task, stages), *tables)
        page.figure(changes.pop("caption", "Loss over steps"), Figure(figsize=(1, 1)))
        page.samples(samples or (base, tuned), count=1)
        verdicts = [
            Verdict("format", 0.995, "at least", 0.99, "unseen"),
            Verdict("accuracy", 0.1, "at least", 0.2, "train longer"),
        ]
        page.verdicts(verdicts)
        details = {
            "Settings": {"SEED": 3, "training": {"steps": 40}},
            "Versions": {"versions": {"jax": "0.10.2"}, "git_commit": None},
        }
        head = {"lead": "What came of it.", "facts": {"Model": "embedded"}, "details": details}
        head |= {"warnings": ["12 examples were left out."], **changes}
        write_page(tmp_path / "report.html", page, **head)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def squeezed(html: str) -> str:
    return " ".join(" ".join(Browser(html).pieces).split())


def test_the_page_says_everything(written):
    said = squeezed(written())
    for words in (
        "A run",
        "What came of it.",
        "Warning. 12 examples were left out.",
        "Model embedded",
        "1 of 2 met",
        "✓ met format at least 0.99 0.995",
        "✗ not met accuracy at least 0.2 0.1 train longer",
        "format accuracy (the whole completion has the strict form) 0.000 [0.000, 0.793] (n=1)",
        "Loss over steps",
        "newly right t/0, level 1",
        "How many?",
        "✗ wrong not strict: missing tag",
        "✓ right strict",
        "cut at the token limit",
        "Answer read: none",
        "<answer>4</answer>",
        "SEED 3",
        "training.steps 40",
        "versions.jax 0.10.2",
        "git_commit null",
    ):
        assert words in said
    assert "unseen" not in said


def test_the_same_tables_stand_beside_it_in_markdown(written, tmp_path):
    written()
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# A run\n\nWhat came of it.\n\n- Model: embedded\n\n> 12 examples")
    assert "**Targets**\n\n| " in text
    assert text.count("\n| --- |") == text.count("**") / 2 - text.count("None.")


def test_an_unknown_rate_is_called_unknown(written, word_stage):
    said = squeezed(written(stages=[word_stage("file", ["4"], truncated=None)]))
    assert "cut at the token limit; lower is better) unknown" in said and "nan" not in said


def test_warnings_stand_before_the_verdicts(written):
    said = squeezed(written())
    assert said.index("Warning.") < said.index("Targets")


def test_the_page_needs_nothing_outside_it(written):
    html = written()
    page = Browser(html)
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    links = [value for name, value in page.attributes if name in {"src", "href"}]
    assert len(links) == 1 and links[0].startswith("data:image/png;base64,")
    assert base64.b64decode(links[0].partition(",")[2]).startswith(b"\x89PNG")
    assert "default-src 'none'" in html and "http://" not in html and "https://" not in html


def test_a_hostile_completion_is_shown_harmless(written, base, tuned):
    fields = ("completion", "answer", "failure", "id", "question", "reference", "group")
    hostile = changed(base, **dict.fromkeys(fields, HOSTILE), details={HOSTILE: HOSTILE})
    calm = changed(base, details={"a": "b"})
    same = {"id": HOSTILE, "reference": HOSTILE, "group": HOSTILE, "question": HOSTILE}
    harmless = written(samples=(calm, tuned))
    html = written(samples=(hostile, changed(tuned, **same)))
    page = Browser(html)
    assert page.tags == Browser(harmless).tags  # nothing of the completion became an element
    assert "onerror" not in dict(page.attributes)
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text
    assert "⟨U+0000⟩⟨U+001B⟩[31m⟨U+202E⟩81⟨U+200B⟩⟨U+D800⟩" in page.text
    assert not re.search("[\x00-\x08\x1b\u202e\u200b]", html)


@pytest.mark.parametrize("place", ["title", "lead", "facts", "warnings", "details", "caption"])
def test_every_other_text_is_harmless_too(written, place):
    change = {
        "facts": {HOSTILE: HOSTILE},
        "warnings": [HOSTILE],
        "details": {HOSTILE: {HOSTILE: HOSTILE}},
    }.get(place, HOSTILE)
    page = Browser(written(**{place: change}))
    assert page.tags.count("script") == 0 and page.tags.count("img") == 1
    assert "onerror" not in dict(page.attributes)


@pytest.mark.parametrize("verbatim", [(), (HOSTILE,)])
def test_a_hostile_table_is_harmless(written, verbatim):
    text = {"title": HOSTILE, "columns": ("a", HOSTILE), "note": HOSTILE, "verbatim": verbatim}
    html = written(Table(rows=(("b", HOSTILE),), **text))
    page = Browser(html)
    assert page.tags.count("script") == 0 and page.tags.count("img") == 1
    assert "<script>alert(1)</script>" in page.text and "⟨U+202E⟩" in html


def test_a_megabyte_is_shortened_with_both_ends_kept(written, base, tuned):
    html = written(samples=(changed(base, completion="start" + "\n<" * 500_000 + "end"), tuned))
    assert len(html) < 60_000
    assert "left out" in html and "start" in html and "end</pre>" in html


def test_completions_of_the_training_are_shown_whole_and_no_tag_in_them_counts(written):
    rollout = {"step": 17, "id": "t/9", "reward": 1.2, "advantage": -0.456, "truncated": False}
    text = "<reasoning>\n9 * 2 = 18\n</reasoning>\n" + "9" * 500_000 + "end"
    html = written(rollout_table([{**rollout, "completion": text}], count=6, seed=0))
    said = squeezed(html)
    assert "Completions through the training step reward advantage completion" in said
    assert "17 t/9 1.20 -0.46 <reasoning> 9 * 2 = 18 </reasoning> 999" in said
    assert {"reasoning", "answer"}.isdisjoint(Browser(html).tags)
    assert len(html) < 60_000 and "9end</pre>" in html


def test_sections_without_content_are_left_out(tmp_path):
    page = Page(title="A run", task=GSM8K, seed=0)
    page.figure("Nothing", None)
    page.table(Table(title="Nothing", columns=("a",), rows=()), stage_table(GSM8K, ()))
    page.verdicts(())
    page.samples((), count=4)
    write_page(tmp_path / "report.html", page, details={"Settings": {}})
    tags = Browser((tmp_path / "report.html").read_text()).tags
    assert {"h2", "details", "dl", "img", "article", "section"}.isdisjoint(tags)


def test_a_failed_write_leaves_the_old_page_and_no_half_one(written, tmp_path, monkeypatch):
    old = written()

    def full_disk(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(nblib.files.os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        written(title="Another")
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md"}
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_a_table_stands_with_its_note_and_an_empty_one_says_so(written):
    gains = Table(title="Gains", columns=("over", "points"), rows=(("base", "+6.0"),), note="same")
    lost = Table(title="Regressions", columns=("item",), rows=(), note="0 in all")
    said = squeezed(written(gains, lost))
    assert "Gains over points base +6.0 same" in said
    assert "Regressions None. 0 in all" in said


def test_words_that_changed_are_underlined_and_the_rest_is_not():
    before = "She has 8 pens. 8 - 3 = 4 pens."
    assert marked("She has 8 pens. 8 - 3 = 5 pens.", before) == (
        "She has 8 pens. 8 - 3 = <ins>5</ins> pens."
    )
    assert marked(before, before) == before


def test_without_a_stage_before_or_much_in_common_nothing_is_underlined():
    assert marked("one two", None) == "one two"
    assert marked("<b>one two three</b>", "1 + 1") == "&lt;b&gt;one two three&lt;/b&gt;"


@given(st.text(), st.text())
def test_marking_loses_no_character_and_opens_no_tag(text, before):
    html = str(marked(text, before))
    page = Browser(html)
    assert set(page.tags) <= {"ins"}
    assert page.text == visible(text)


def test_samples_are_marked_against_the_stage_before(written, word_stage, tuned):
    other = word_stage("grpo", [TUNED.replace("= 4", "= 5")])
    assert written(samples=(tuned, other)).count("<ins>5</ins>") == 1


def test_a_mean_and_a_reference_that_is_no_text(written, slots, slot_stage):
    stages = slot_stage("base", ["a is 1"]), slot_stage("tuned", ['{"a": 1, "b": 3}'])
    said = squeezed(written(task=slots, stages=stages, samples=stages))
    for words in (
        "slot f1 (F1 of the slots) 0.000",
        "wrong at the end s/0, group times",
        'Reference {"a": 1, "b": 2}',
        "base ✗ slot f1 0.000 not strict: no object",
        'tuned ✗ slot f1 0.500 strict {"a": 1, "b": 3}',
        'Answer read: {"a": 1, "b": 3} right: 1 empty: false',
    ):
        assert words in said, words


def test_a_page_shows_what_it_keeps_and_a_cell_run_again_replaces_it(base, tuned, shown, capsys):
    page = Page(title="A run", task=GSM8K, seed=0)
    for _ in range(2):
        page.warn("3 rows were left out", "and one more")
        page.figure("Loss", Figure(figsize=(1, 1)))
        page.table(stage_table(GSM8K, (base, tuned)))
        page.samples((base, tuned), count=4)
    assert page.warnings == ("3 rows were left out", "and one more")
    assert capsys.readouterr().out.startswith("3 rows were left out\nand one more\n")
    assert ([*page.figures], [*page.tables], len(page.picked)) == (["Loss"], ["Stages"], 1)
    image, stages, samples = shown[:3]
    assert image.data == page.figures["Loss"] and image.data.startswith(b"\x89PNG")
    assert stages == page.tables["Stages"] and samples.columns[-2:] == ("base", "tuned")


@pytest.fixture
def shown(monkeypatch):
    """What a notebook displays."""
    displayed = []
    monkeypatch.setattr("nblib.report.page.display", displayed.append)
    return displayed


@pytest.fixture
def run(tmp_path):
    parameters = {"profile": "cpu", "seed": 3, "rank": 4}
    started = time.monotonic() - 60
    return start_run("toy", parameters, devices=["cpu:0"], started=started, root=tmp_path / "runs")


def ended(run, stages, **more):
    page = Page(title="A run", task=GSM8K, seed=3)
    given = {"model": "embedded", "data": "built-in", "hashes": {"model": "ab"}}
    finish(run, stages, page, **given, **more)
    return json.loads((run.path / "result.json").read_text())


def test_one_call_ends_a_notebook(run, base, tuned, capsys):
    history = [{"step": 1, "alarms": []}, {"step": 2, "alarms": ["kl_too_large"]}]
    trained = Trained(steps=2, planned=5, resumed_at=0, history=history)
    result = ended(run, (base, tuned), trained=trained, extra=1)
    assert (result["notebook"], result["task"], result["profile"]) == ("toy", "gsm8k", "cpu")
    assert (result["steps_left"], result["extra"]) == (3, 1) and result["wall_s"] >= 60
    assert result["alarms"] == ["step 2: kl_too_large"]
    assert result["stages"]["tuned"]["answer_accuracy"] == 1.0
    assert result["groups"]["base"]["1"]["n"] == 1
    records = read_jsonl(run.path / "predictions.jsonl")
    assert [(one["stage"], one["id"]) for one in records] == [("base", "t/0"), ("tuned", "t/0")]
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert (manifest["hashes"], manifest["devices"]) == ({"model": "ab"}, ["cpu:0"])
    said = squeezed((run.path / "report.html").read_text())
    assert "A run Trained for 2 of 5 steps (the session was over). Format accuracy went" in said
    assert "Warning. Alarm at step 2: kl_too_large model embedded data built-in steps 2" in said
    assert "base: 100.0% of the completions were cut" not in said  # nothing trained it yet
    assert "Settings profile cpu seed 3 rank 4 Versions and hashes versions.nblib" in said
    assert "1.0 minutes" in capsys.readouterr().out


def test_a_comparison_gets_its_files_and_begins_the_page(run, base, tuned):
    compared, asked = compare_stages((base, tuned), GSM8K), {"asked": {"base": "question"}}
    result = ended(run, (base, tuned), comparison=compared, asked=asked, votes={"base": 1})
    metrics = json.loads((run.path / "comparison_metrics.json").read_text())
    assert metrics["votes"] == {"base": 1} and "votes" not in result
    assert metrics["settings"] == {"profile": "cpu", "seed": 3, "rank": 4, **asked}
    assert (metrics["hashes"], metrics["paired"]["base"]) == ({"model": "ab"}, "base")
    (failure,) = read_jsonl(run.path / "schema_failures_debug.jsonl")
    assert (failure["stage"], failure["broke"]) == ("base", "truncated")
    said = squeezed((run.path / "report.html").read_text())
    for words in (
        "held-out questions. Lenient accuracy went from 100.0% (base) to 100.0% (tuned): +0.0",
        "Warning. base: 100.0% of the completions were cut",
        "questions 1 smallest gain that shows none (there are too few items)",
        "Asked asked.base question",
    ):
        assert words in said, words


def test_without_stages_there_are_no_predictions(run):
    assert ended(run, ())["stages"] == {}
    assert {"report.html", "result.json"} <= {path.name for path in run.path.iterdir()}
    assert not (run.path / "predictions.jsonl").exists()


def test_a_card_stands_in_every_folder_that_names_its_base(run, tuned):
    manifests = {"export": {"base": {"name": "embedded"}}, "adapters": {"base": {}}, "flax": {}}
    manifests["gguf"] = {"base": {"name": "embedded"}}
    for name, manifest in manifests.items():
        (run.path / name).mkdir(exist_ok=True)
        (run.path / name / "manifest.json").write_text(json.dumps(manifest))
    (run.path / "gguf" / "model-f16.gguf").write_bytes(b"")
    ended(run, [tuned])
    card = (run.path / "gguf" / "README.md").read_text()
    assert "# A run, GGUF\n" in card and 'library_name: "gguf"' in card
    assert "# A run\n" in (run.path / "export" / "README.md").read_text()
    assert "# A run, adapters\n" in (run.path / "adapters" / "README.md").read_text()
    assert not (run.path / "flax" / "README.md").exists()

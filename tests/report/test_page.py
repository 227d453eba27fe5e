import base64
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import nblib.files
from nblib.report.page import flatten, marked, shorten, visible, write_report
from nblib.report.samples import pick_samples
from nblib.report.tables import Table
from nblib.report.verdicts import at_least

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></pre></article>\x00\x1b[31m"
    "\u202e81\u200b\ud800{{ 7 * 7 }}"
)


class Page(HTMLParser):
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


def prediction(stage: str, **fields) -> dict:
    return {
        "id": "t/1",
        "stage": stage,
        "prompt": "How many?",
        "completion": "#### 4",
        "reference": "2 + 2 = 4\n#### 4",
        "answer": None,
        "correct": False,
        "format": False,
        "failure": "missing tag",
        "truncated": True,
        "level": 1,
    } | fields


TUNED = {
    "completion": "<reasoning>\n2 + 2 = 4\n</reasoning>\n<answer>4</answer>",
    "answer": "4",
    "correct": True,
    "format": True,
    "failure": None,
    "truncated": False,
}


def written(tmp_path, **changes) -> str:
    path = tmp_path / "report.html"
    arguments = {
        "title": "A run",
        "lead": "What came of it.",
        "facts": {"Model": "embedded"},
        "verdicts": [
            at_least("format", 0.995, 0.99, "unseen"),
            at_least("accuracy", 0.1, 0.2, "train longer"),
        ],
        "stages": {
            "base": {"n": 200, "format_accuracy": 0.995, "format_accuracy_ci95": [0.981, 0.999]},
            "tuned": {"n": 200},
        },
        "figures": {"Loss over steps": Figure(figsize=(1, 1))},
        "samples": pick_samples(
            [prediction("base"), prediction("tuned", **TUNED)], count=1, seed=0
        ),
        "config": {"SEED": 3, "training": {"steps": 40}},
        "manifest": {"versions": {"jax": "0.10.2"}, "git_commit": None},
        "warnings": ["12 examples were left out."],
    }
    write_report(path, **(arguments | changes))
    return path.read_text(encoding="utf-8")


def squeezed(html: str) -> str:
    return " ".join(" ".join(Page(html).pieces).split())


def test_the_page_says_everything(tmp_path):
    said = squeezed(written(tmp_path))
    for words in (
        "A run",
        "What came of it.",
        "Warning. 12 examples were left out.",
        "Model embedded",
        "1 of 2 met",
        "✓ met format at least 0.99 0.995",
        "✗ not met accuracy at least 0.2 0.1 train longer",
        "0.995 [0.981, 0.999] (n=200)",
        "not measured",
        "Loss over steps",
        "newly right t/1, level 1",
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


def test_a_rate_that_is_unknown_is_told_so(tmp_path):
    file = {"n": 3, "truncation_rate": None, "truncation_rate_ci95": None}
    said = squeezed(written(tmp_path, stages={"file": file}))
    assert "cut at the token limit; lower is better unknown" in said and "nan" not in said


def test_warnings_stand_before_the_verdicts(tmp_path):
    said = squeezed(written(tmp_path))
    assert said.index("Warning.") < said.index("Targets")


def test_the_page_needs_nothing_outside_it(tmp_path):
    html = written(tmp_path)
    page = Page(html)
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    links = [value for name, value in page.attributes if name in {"src", "href"}]
    assert len(links) == 1 and links[0].startswith("data:image/png;base64,")
    assert base64.b64decode(links[0].partition(",")[2]).startswith(b"\x89PNG")
    assert "default-src 'none'" in html and "http://" not in html and "https://" not in html


def test_a_hostile_completion_is_shown_harmless(tmp_path):
    harmless, samples = (
        written(tmp_path),
        pick_samples(
            [
                prediction(
                    "base",
                    completion=HOSTILE,
                    answer=HOSTILE,
                    failure=HOSTILE,
                    id=HOSTILE,
                    prompt=HOSTILE,
                    reference=HOSTILE,
                ),
                prediction("tuned", id=HOSTILE, **TUNED),
            ],
            count=1,
            seed=0,
        ),
    )
    html = written(tmp_path, samples=samples)
    page = Page(html)
    assert page.tags == Page(harmless).tags  # nothing of the completion became an element
    assert "onerror" not in dict(page.attributes)
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text
    assert "⟨U+0000⟩⟨U+001B⟩[31m⟨U+202E⟩81⟨U+200B⟩⟨U+D800⟩" in page.text
    assert not re.search("[\x00-\x08\x1b\u202e\u200b]", html)


@pytest.mark.parametrize(
    "place", ["title", "lead", "facts", "warnings", "config", "figures", "tables"]
)
def test_every_other_text_is_harmless_too(tmp_path, place):
    change = {
        "title": HOSTILE,
        "lead": HOSTILE,
        "facts": {HOSTILE: HOSTILE},
        "warnings": [HOSTILE],
        "config": {HOSTILE: HOSTILE},
        "figures": {HOSTILE: Figure(figsize=(1, 1))},
        "tables": {HOSTILE: Table(columns=(HOSTILE,), rows=((HOSTILE,),), note=HOSTILE)},
    }[place]
    page = Page(written(tmp_path, **{place: change}))
    assert page.tags.count("script") == 0 and page.tags.count("img") == 1
    assert "onerror" not in dict(page.attributes)


def test_a_megabyte_is_shortened_with_both_ends_kept(tmp_path):
    samples = pick_samples(
        [prediction("base", completion="start" + "\n<" * 500_000 + "end"), prediction("tuned")],
        count=1,
        seed=0,
    )
    html = written(tmp_path, samples=samples, figures={})
    assert len(html) < 40_000
    assert "left out" in html and "start" in html and "end</pre>" in html


ROLLOUT = {
    "step": 17,
    "id": "builtin/train/9",
    "completion": "<reasoning>\n9 * 2 = 18\n</reasoning>\n<answer>18</answer>",
    "truncated": False,
    "tokens": 31,
    "reward": 1.2,
    "advantage": -0.456,
}


def test_completions_of_the_training_are_shown_in_their_order(tmp_path):
    cut = ROLLOUT | {"step": 40, "reward": -0.3, "advantage": 2, "truncated": True}
    html = written(tmp_path, rollouts=[ROLLOUT, cut])
    said = squeezed(html)
    for words in (
        "Completions through the training",
        "step 17 builtin/train/9, reward 1.20, advantage -0.46 <reasoning> 9 * 2 = 18",
        "step 40 builtin/train/9, reward -0.30, advantage +2.00, cut at the token limit",
    ):
        assert words in said
    assert said.index("step 17") < said.index("step 40")
    assert {"reasoning", "answer"}.isdisjoint(Page(html).tags)


def test_a_hostile_completion_of_the_training_is_shown_harmless(tmp_path):
    hostile = ROLLOUT | {"completion": HOSTILE, "id": HOSTILE}
    harmless = written(tmp_path, rollouts=[ROLLOUT])
    html = written(tmp_path, rollouts=[hostile])
    assert Page(html).tags == Page(harmless).tags
    assert "<script>alert(1)</script>" in Page(html).text
    assert "⟨U+202E⟩" in html and "{{ 7 * 7 }}" in html
    assert "onerror" not in dict(Page(html).attributes)


def test_a_long_completion_of_the_training_is_shortened(tmp_path):
    endless = ROLLOUT | {"completion": "start" + "9" * 500_000 + "end"}
    html = written(tmp_path, rollouts=[endless], figures={})
    assert len(html) < 40_000
    assert "start9" in html and "9end</pre>" in html


def test_without_rollouts_there_is_no_section_of_them(tmp_path):
    for nothing in ({}, {"rollouts": ()}):
        assert "Completions through the training" not in written(tmp_path, **nothing)


def test_sections_without_content_are_left_out(tmp_path):
    html = written(tmp_path, facts={}, verdicts=[], stages={}, figures={}, samples=[], warnings=())
    page = Page(html)
    assert page.tags.count("h2") == 1 and "Details" in page.text
    assert {"dl", "img", "article", "section"}.isdisjoint(page.tags)


def test_a_failed_write_leaves_the_old_page_and_no_other_file(tmp_path, monkeypatch):
    old = written(tmp_path)

    def full_disk(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(nblib.files.os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, title="Another")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_a_rate_without_interval_is_refused(tmp_path):
    broken = {"base": {"format_accuracy": 0.5, "format_accuracy_ci95": [0.4, 0.6]}}
    with pytest.raises(ValueError, match="'n'"):
        written(tmp_path, stages=broken)
    assert list(tmp_path.iterdir()) == []


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, None], "e": "x"}) == {
        "a.b.c": "1",
        "d": "[1, null]",
        "e": "x",
    }


def test_shorten_by_hand():
    assert shorten("abcdefghi", characters=6) == "abcd\n… 3 characters left out …\nhi"
    assert shorten("1\n2\n3\n4\n5", lines=3) == "1\n2\n… 2 lines left out …\n5"
    assert shorten("as it is") == "as it is"


def test_prose_stays_as_it_is():
    assert visible("é 数 👍 a\tb\n5\u00a0%") == "é 数 👍 a\tb\n5\u00a0%"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_whatever_comes_can_be_seen_and_stored(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in shown)
    assert "\u2028" not in shown and "\r" not in shown


def test_a_table_stands_with_its_note_and_an_empty_one_says_so(tmp_path):
    tables = {
        "Gains": Table(columns=("over", "points"), rows=(("base", "+6.0"),), note="same items"),
        "Regressions": Table(columns=("item",), rows=()),
    }
    said = squeezed(written(tmp_path, tables=tables))
    assert "Gains over points base +6.0 same items" in said
    assert "Regressions None." in said


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
    page = Page(html)
    assert set(page.tags) <= {"ins"}
    assert page.text == visible(text)


def test_samples_are_marked_against_the_stage_before(tmp_path):
    changed = TUNED | {"completion": TUNED["completion"].replace("= 4", "= 5")}
    samples = pick_samples(
        [prediction("base", **TUNED), prediction("tuned", **changed)], count=1, seed=0
    )
    assert written(tmp_path, samples=samples).count("<ins>5</ins>") == 1

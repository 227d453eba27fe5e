import json

import pytest

from nblib.__main__ import main
from nblib.evaluation.answer_table import write_answers
from nblib.tools.token_projection import Prices, Projection, measured_tokens, price_pairs, rounded

MEASURED = [(100, 10), (200, 20), (300, 30), (400, 40)]


def projection(**changes):
    given = {"where": "out.jsonl", "measured": MEASURED, "pages_per_day": 1000, "prices": {}}
    return Projection(**{**given, "budget": 1_000_000, **changes})


def test_figures_worked_out_by_hand():
    lines = str(projection()).splitlines()
    assert lines[:4] == [
        "out.jsonl: 4 pages",
        "tokens in a page: mean 250, p50 200, p95 400",
        "tokens out a page: mean 25.0, p50 20, p95 40",
        "tokens a page: mean 275, p50 220, p95 440",
    ]
    # stdev 142.0, over the root of 4: 71.0, times 1.96: 139.2
    assert lines[4] == "1,000 pages a day: 275 k tokens a day (95 %: 136 k to 414 k)"
    assert lines[5] == ("budget 1,000,000 tokens a day: 28% of it are used; 3.64 k pages a day fit")
    assert len(lines) == 6


def test_a_backlog_and_prices():
    prices = {
        "tuned": Prices(tokens_in=0.1, tokens_out=0.4),
        "strong": Prices(tokens_in=2, tokens_out=8),
    }
    lines = str(projection(backlog=100_000, prices=prices)).splitlines()[6:]
    assert lines == [
        "backlog 100,000 pages: 27.5 days of the whole budget",
        "tuned: 0.0350 a day, 3.50 the backlog, 0.0350 a thousand pages",
        "strong: 0.700 a day, 70.0 the backlog, 0.700 a thousand pages",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1, "1.00"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (2_431_872.4, "2.43 M"),
        (1.5e10, "15.0 G"),
        (-2500, "-2.50 k"),
    ],
)
def test_three_digits_count(value, expected):
    assert rounded(value) == expected


def test_prices_come_in_pairs():
    none = dict.fromkeys(("price_in", "price_out", "strong_price_in", "strong_price_out"))
    assert price_pairs(none) == {}
    assert price_pairs({**none, "price_in": 0.0, "price_out": 1.0}) == {
        "tuned model": Prices(tokens_in=0.0, tokens_out=1.0)
    }
    with pytest.raises(ValueError, match="--strong-price-in and --strong-price-out"):
        price_pairs({**none, "strong_price_out": 1.0})


def answers(path, records):
    known = {"row": 0, "id": "a", "task": "shop", "answer": {}, "valid": True, "truncated": False}
    names = ("prompt_tokens", "completion_tokens", "problem")
    write_answers(path, [known | dict(zip(names, one, strict=True)) for one in records])
    return path


def test_a_table_of_answers_is_measured_without_its_bad_pages(tmp_path, capsys):
    records = [(100, 10, None), (200, 20, None), (0, 0, "empty page")]
    path = answers(tmp_path / "out.jsonl", records)
    assert measured_tokens(str(path)) == ("out.jsonl", [(100, 10), (200, 20)])
    assert main(["project-tokens", str(path), "50", "--price-in", "1", "--price-out", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "out.jsonl: 2 pages" and lines[-1].startswith("tuned model: 0.00900 a day")
    assert main(["project-tokens", str(path), "50", "--price-in", "1"]) == 1
    assert "one price of the tuned model is missing" in capsys.readouterr().err
    assert main(["project-tokens", str(path), "0"]) == 2


def test_a_database_of_answers_is_the_same(tmp_path):
    pytest.importorskip("duckdb")
    records = [(100, 10, None), (200, 20, None), (0, 0, "empty page")]
    answers(tmp_path / "out.duckdb", records)
    assert measured_tokens(str(tmp_path / "out.duckdb"))[1] == [(100, 10), (200, 20)]


def test_what_cannot_be_measured_is_said(tmp_path):
    one = answers(tmp_path / "one.jsonl", [(100, 10, None)])
    with pytest.raises(ValueError, match="has 1 answered pages, expected at least 2"):
        measured_tokens(str(one))
    (tmp_path / "other.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match="is no table of answers"):
        measured_tokens(str(tmp_path / "other.jsonl"))


@pytest.fixture
def run(tmp_path, tokenizer):
    """A run's folder with an export and the records of its evaluation."""
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    (export / "tokenizer.model").write_bytes(tokenizer.serialized_model_proto())
    for name in ("config.json", "model.safetensors"):
        (export / name).touch()
    stages = {"base": 90, "tuned_grammar": 7, "tuned": 8}
    lines = [
        json.dumps({"stage": name, "prompt": prompt, "tokens": tokens + n})
        for name, tokens in stages.items()
        for n, prompt in enumerate(("12", "1 + 2"))
    ]
    (tmp_path / "run" / "predictions.jsonl").write_text("\n".join(lines))
    return tmp_path / "run"


def test_of_a_run_the_held_out_pages_under_the_grammar_are_measured(run, tokenizer):
    expected = [(1 + len(tokenizer.encode("12")), 7), (1 + len(tokenizer.encode("1 + 2")), 8)]
    for given in (run, run / "export"):
        assert measured_tokens(str(given)) == ("run, stage tuned_grammar", expected)
    (run / "predictions.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="its run evaluated nothing"):
        measured_tokens(str(run))

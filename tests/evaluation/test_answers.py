"""Asked, scored, kept: with a model that has learnt three questions, and with stand-ins."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tunix.sft.utils import build_positions_from_mask, make_causal_attn_mask

from nblib.evaluation import answers as module
from nblib.evaluation.answers import (
    Decoding,
    ask,
    evaluate_stages,
    generate,
    make_probe,
    score_answers,
    stage_of_rule,
)
from nblib.evaluation.kept import ANSWER_KEYS
from nblib.files import read_jsonl, to_jsonable, write_jsonl
from nblib.sources.rows import Row
from nblib.tasks.gsm8k import GSM8K
from nblib.tasks.task import Example
from nblib.tokens.chat import render_prompt, task_prompts
from nblib.tokens.grammar import compile_grammar
from nblib.tokens.tokenizer import TokenizerMismatch, stop_tokens, train_tokenizer
from nblib.training.session import CompilationCounter

# The contract of predictions.jsonl.
KEYS = {*ANSWER_KEYS, "stage", "answer", "failure", "details", *GSM8K.metric_names}
HASH = GSM8K.variants["hash"]
NEW_TOKENS = 20  # past the window of 16
DECODING = Decoding(max_new_tokens=NEW_TOKENS, batch_size=2)
SAMPLED = replace(DECODING, temperature=1.0, seed=5)


def last_number(completion, example):
    """The model writes "1 + 2 = 3": its result counts as the answer."""
    return HASH.score(f"so\n#### {completion.rpartition('= ')[2]}", example)


LAST = replace(HASH, score=last_number)


@pytest.fixture(scope="module")
def examples(eight):
    """Three learnt questions; the reference of the second is wrong on purpose."""
    numbers = {1: "3", 2: "99", 3: "7"}
    return HASH.examples(
        [
            Row(
                id=f"pens/{n}",
                fields={"question": f"{n} pens and {n + 1}?", "answer": f"Steps.\n#### {number}"},
                group=group,
            )
            for (n, number), group in zip(numbers.items(), ("10", "10", "9"), strict=True)
        ]
    )


@pytest.fixture(scope="module")
def ref(ref_of, overfitted, tokenizer, mesh):
    return ref_of(overfitted[0], tokenizer, mesh)


@pytest.fixture(scope="module")
def prompts(eight):
    """Learnt questions and, of other lengths, two that were not."""
    known = [render_prompt(question) for question in eight]
    longer = render_prompt("How many pens, 3 or 4?")
    return [known[0], "2 hens and 3 more", known[7], longer, known[4]]


@pytest.fixture(scope="module")
def greedy(ref, prompts):
    """Five prompts in batches of two, so that the last batch has to be filled up."""
    return generate(ref, prompts, DECODING)


def test_answers_come_in_the_order_of_the_prompts(greedy, prompts, eight):
    assert [one["prompt"] for one in greedy] == prompts
    known = list(eight.values())
    assert [greedy[n]["completion"] for n in (0, 2, 4)] == [known[0], known[7], known[4]]


def test_stop_token_is_not_counted(greedy, tokenizer):
    for one in (greedy[0], greedy[2], greedy[4]):
        assert one["tokens"] == len(tokenizer.encode(one["completion"]))
        assert not one["truncated"]


def test_greedy_equals_an_argmax_over_the_whole_text(overfitted, greedy, tokenizer):
    """No cache, no padding on the left: so masks, positions and the window are the same."""
    model, length = overfitted[0], 64

    @nnx.jit
    def scores_of(model, tokens):
        mask = tokens != 0
        positions = build_positions_from_mask(mask)
        return model(tokens, positions, None, make_causal_attn_mask(mask))[0][0]

    for one in greedy:
        ids = [tokenizer.bos_id(), *tokenizer.encode(one["prompt"])]
        written = []
        while len(written) < NEW_TOKENS:
            padded = np.zeros((1, length), np.int32)
            padded[0, : len(ids)] = ids
            best = int(np.argmax(scores_of(model, jnp.asarray(padded))[len(ids) - 1]))
            if best in stop_tokens(tokenizer):
                break
            ids.append(best)
            written.append(best)
        assert one["completion"] == tokenizer.decode(written)
        assert one["tokens"] == len(written)
        assert one["truncated"] == (len(written) == NEW_TOKENS)


def test_cut_answer_is_truncated(ref, prompts, eight, greedy):
    whole = greedy[0]["tokens"]
    for limit, cut in ((whole, True), (whole + 1, False)):
        (one,) = generate(ref, prompts[:1], replace(DECODING, max_new_tokens=limit))
        assert one["truncated"] == cut, limit
        assert one["tokens"] == min(limit, whole)
        assert next(iter(eight.values())).startswith(one["completion"])


def test_sampling_follows_its_seed(ref_of, new_model, tokenizer, prompts, mesh):
    # Untrained: everything is about as likely.
    fresh = ref_of(new_model(embed_dim=32, head_dim=16), tokenizer, mesh)

    def sampled(seed):
        found = generate(fresh, prompts[:3], replace(SAMPLED, seed=seed))
        return [one["completion"] for one in found]

    first = sampled(0)
    assert sampled(0) == first
    assert sampled(1) != first
    assert len(set(first)) == 3


def test_small_top_p_is_nearly_greedy(ref, greedy, prompts):
    assert generate(ref, prompts[:2], DECODING.sampled(temperature=0.7, top_p=1e-6)) == greedy[:2]


def test_wrong_tokenizer(ref, texts, prompts):
    larger = train_tokenizer(texts, vocab_size=560)
    with pytest.raises(TokenizerMismatch, match=r"^model 544, tokenizer 560: "):
        generate(replace(ref, tokenizer=larger), prompts, DECODING)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, r"temperature -0\.1 must be"),
        ({"top_p": 0.0}, r"top_p 0\.0 in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p 1\.1 in \(0, 1\]"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 "),
        ({"batch_size": 0}, "batch_size 0 must"),
    ],
)
def test_settings_that_the_sampler_would_misunderstand(values, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**values)


@pytest.fixture(scope="module")
def stage(ref, examples):
    """The model writes "1 + 2 = 3", and in the hash form that is no answer."""
    return evaluate_stages(ref, {"base": (HASH, DECODING)}, examples)[0]


@pytest.fixture
def writes(monkeypatch):
    """Replace the model by one that writes given texts; returns the seeds it was asked with."""
    seeds = []

    def install(*texts):
        def written(ref, prompts, decoding, grammars=None):
            seeds.append(decoding.seed)
            return [
                {"prompt": prompt, "completion": text, "tokens": 9, "truncated": text == "7"}
                for prompt, text in zip(prompts, texts, strict=True)
            ]

        monkeypatch.setattr(module, "generate", written)
        return seeds

    return install


def test_one_record_an_example_with_the_contracts_keys(stage, examples):
    assert [record["id"] for record in stage.records] == ["pens/1", "pens/2", "pens/3"]
    for record, example in zip(stage.records, examples, strict=True):
        assert set(record) == KEYS
        assert record["stage"] == "base"
        assert record["prompt"] == render_prompt(example.prompt)
        assert (record["reference"], record["group"]) == (example.reference, example.group)
    assert to_jsonable(stage.records)


def test_records_say_what_the_model_wrote(stage):
    assert [record["completion"] for record in stage.records] == [
        *("1 + 2 = 3", "2 + 3 = 5", "3 + 4 = 7")
    ]
    assert not any(record["truncated"] for record in stage.records)
    assert not any(record["format_accuracy"] for record in stage.records)


def test_metrics_have_every_rate_interval_and_the_decoding(stage):
    assert stage.metrics["n"] == 3
    for rate in (*GSM8K.metric_names, "truncation_rate"):
        low, high = stage.metrics[f"{rate}_ci95"]
        assert low <= stage.metrics[rate] <= high
    assert stage.metrics["truncation_rate"] == 0.0
    assert stage.metrics["decoding"]["max_new_tokens"] == 20
    assert {group: metrics["n"] for group, metrics in stage.by_group.items()} == {"9": 1, "10": 2}
    assert list(stage.by_group) == ["9", "10"]


def test_scores_are_the_tasks_own(ref, examples, writes):
    """Completions that are right, wrong and without form have scores of their own."""
    writes(
        "<reasoning>1 + 2</reasoning><answer>3</answer>",
        "<reasoning>2 + 3</reasoning><answer>5</answer>",
        "7",
    )
    (stage,) = evaluate_stages(ref, {"x": (GSM8K, DECODING)}, examples)
    assert all("<reasoning></reasoning>" in record["prompt"] for record in stage.records)
    assert [record["joint_accuracy"] for record in stage.records] == [True, False, False]
    assert stage.metrics["format_accuracy"] == pytest.approx(2 / 3)
    assert stage.metrics["answer_accuracy"] == pytest.approx(1 / 3)
    assert stage.metrics["lenient_accuracy"] == pytest.approx(2 / 3)
    assert stage.metrics["truncation_rate"] == pytest.approx(1 / 3)
    assert stage.by_group["10"]["answer_accuracy"] == pytest.approx(1 / 2)


def test_stages_in_their_order_and_none_when_not_wanted(ref, examples, stage):
    own = (HASH, DECODING)
    assert evaluate_stages(ref, {"a": own}, examples, enabled=False) == ()
    stages = evaluate_stages(ref, {"a": own, "b": own}, examples)
    assert [each.name for each in stages] == ["a", "b"]
    assert stages[0].metrics == stage.metrics
    assert {record["stage"] for record in stages[1].records} == {"b"}


def test_a_stage_of_an_earlier_run_is_read_with_the_seconds_that_it_took(
    ref, examples, writes, tmp_path, monkeypatch, capsys
):
    """An evaluation's time is kept back for the one after the training, so it must not be 0."""
    seeds = writes("3", "99", "7")
    whole = module.generate

    def slow(*args, **kwargs):
        time.sleep(0.05)
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, "generate", slow)
    asked = [evaluate_stages(ref, {"a": (HASH, DECODING)}, examples, kept=tmp_path) for _ in "12"]
    assert len(seeds) == 1 and "a: 3 of 3 answers were there already" in capsys.readouterr().out
    (first,), (second,) = asked
    assert (second.metrics, second.records) == (first.metrics, first.records)
    assert second.seconds >= 0.05
    monkeypatch.setattr("nblib.models.compilation.code_digest", lambda *given: "other code")
    evaluate_stages(ref, {"a": (HASH, DECODING)}, examples, kept=tmp_path)
    assert "a.jsonl is of another computed_by: asked again" in capsys.readouterr().out
    assert len(seeds) == 2


def test_runs_side_by_side_leave_each_others_answers_whole(
    kept_answers, examples, writes, tmp_path, monkeypatch
):
    writes("1", "2", "3")
    kept, whole = tmp_path / "base.jsonl", module.generate
    expected = kept_answers(examples, None, samples=2)

    def beside(*args, **kwargs):
        monkeypatch.setattr(module, "generate", whole)
        kept_answers(examples, kept, decoding=replace(SAMPLED, seed=9))
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, "generate", beside)
    assert kept_answers(examples, kept) == expected
    assert len(read_jsonl(kept)) == 1 + len(expected)
    assert kept_answers(examples, kept) == expected


def test_a_stage_with_worked_examples_is_asked_few_shot(ref, examples, writes):
    asked, shot = examples[:-1], examples[2:]
    writes("3", "99")
    plain, few = evaluate_stages(
        ref, {"plain": (GSM8K, DECODING), "few": (GSM8K, DECODING, shot)}, asked
    )
    worked = task_prompts(GSM8K, asked, style="few-shot", shots=shot)
    assert [one["prompt"] for one in few.records] == worked
    assert [one["prompt"] for one in plain.records] == task_prompts(GSM8K, asked)
    assert few.metrics["shots"] == ["pens/3"] and "shots" not in plain.metrics
    with pytest.raises(ValueError, match="few-shot' needs worked examples"):
        evaluate_stages(ref, {"few": (GSM8K, DECODING, ())}, asked)


def slot_answers(slots):
    rows = [
        Row(id="a", fields={"text": "x is 1", "slots": {"x": 1}}, group="one"),
        Row(id="b", fields={"text": "y is 2, z 3", "slots": {"y": 2, "z": 3}}),
    ]
    written = ('{"x": 1}', '{"y": 2, "q": 0}')
    return [
        {"id": one.id, "question": one.prompt, "reference": one.reference, "group": one.group}
        | {"completion": text}
        for one, text in zip(slots.examples(rows), written, strict=True)
    ]


def test_another_task_has_its_own_metrics_references_and_answers(slots):
    stage = score_answers("x", slot_answers(slots), slots)
    assert (stage.metrics["slot_f1"], stage.metrics["schema_valid"]) == (0.75, 1.0)
    assert list(stage.by_group) == ["one"]
    whole, half = stage.records
    assert (whole["answer"], whole["failure"]) == ({"x": 1}, None)
    assert (half["slot_f1"], half["failure"], half["details"]["right"]) == (0.5, "wrong slots", 1)
    assert (half["group"], half["truncated"]) == ("", None)
    assert json.loads(json.dumps(stage.records)) == list(stage.records)


def test_scored_records_are_scored_again_and_of_another_score_nothing_stays(slots):
    answers = slot_answers(slots)
    once = score_answers("x", answers, slots)
    stale = [{**record, "correct": True, "slot_f1": 0.1} for record in once.records]
    assert score_answers("x", stale, slots) == once


def test_a_verifier_is_asked_once_for_all_and_has_the_last_word(slots):
    asked = []

    def verify(completions, examples, scores):
        asked.append((list(completions), [one.reference for one in examples]))
        return [replace(one, values={**one.values, "slot_f1": 0.0}) for one in scores]

    answers = slot_answers(slots)
    stage = score_answers("x", answers, replace(slots, verify=verify))
    references = [{"x": 1}, {"y": 2, "z": 3}]
    assert asked == [(['{"x": 1}', '{"y": 2, "q": 0}'], references)]
    assert stage.metrics["slot_f1"] == 0.0


def test_a_reference_that_cannot_be_scored_against_names_its_item(slots):
    answers = slot_answers(slots)
    answers[1]["reference"] = "18"
    with pytest.raises(ValueError, match="item 'b': unreadable reference '18'"):
        score_answers("x", answers, slots)
    with pytest.raises(ValueError, match="got 0 records"):
        score_answers("x", [], slots)


@pytest.fixture
def kept_answers(ref_of, monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 7.0))

    def run(examples, kept, **changes):
        given = {"ref": {}, "task": GSM8K, "decoding": SAMPLED, "samples": 2} | changes
        ref, task, decoding = (given.pop(name) for name in ("ref", "task", "decoding"))
        return ask(replace(ref_of(), **ref), task, examples, decoding, kept=kept, **given)

    return run


def test_samples_come_round_after_round_each_with_the_next_seed(kept_answers, examples, writes):
    seeds = writes("1", "2", "3")
    answers = kept_answers(examples, None, samples=3)
    assert [one["id"] for one in answers] == [one.id for one in examples] * 3
    assert seeds == [5, 6, 7]


def test_what_is_kept_is_not_asked_again(kept_answers, examples, writes, tmp_path, capsys):
    seeds, kept = writes("1", "2", "3"), tmp_path / "deep" / "base.jsonl"
    answers = kept_answers(examples, kept)
    header, *records = read_jsonl(kept)
    assert header["identity"]["model_sha256"] == "aa11"
    assert header["identity"]["decoding"]["max_new_tokens"] == 20
    assert records == answers and len(answers) == 6
    capsys.readouterr()
    assert kept_answers(examples, kept) == answers
    assert len(seeds) == 2
    assert capsys.readouterr().out == "base: 6 of 6 answers were there already\n"


def test_a_killed_run_asks_only_for_what_is_missing(
    kept_answers, examples, writes, tmp_path, monkeypatch
):
    seeds, kept = writes("1", "2", "3"), tmp_path / "base.jsonl"
    expected = kept_answers(examples, tmp_path / "whole.jsonl", samples=4)
    seeds.clear()
    whole = module.generate

    def killed(*args, **kwargs):
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        kept_answers(examples, kept, samples=4)
    assert [path.name for path in tmp_path.iterdir() if path != kept] == ["whole.jsonl"]
    monkeypatch.setattr(module, "generate", whole)
    assert kept_answers(examples, kept, samples=4) == expected
    assert seeds == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ref": {"sha256": "bb22"}}, "model_sha256"),
        ({"ref": {"name": "tuned"}}, "model"),  # `with_model` keeps the folder's hash
        ({"decoding": replace(SAMPLED, seed=6)}, "decoding"),
        ({"samples": 3}, "samples"),
        ({"task": HASH}, "examples"),
        ({"style": "question"}, "examples"),
        ({"reference": "8"}, "examples"),
        ({"group": "8"}, "examples"),
        ({"id": "8"}, "examples"),
    ],
)
def test_another_request_is_asked_again(
    kept_answers, examples, writes, tmp_path, capsys, change, named
):
    seeds, kept = writes("1", "2", "3"), tmp_path / "base.jsonl"
    kept_answers(examples, kept)
    before = kept.read_bytes()
    changed = dict(change)
    of_example = {name: changed.pop(name) for name in {"reference", "group", "id"} & {*changed}}
    kept_answers([replace(examples[0], **of_example), *examples[1:]], kept, **changed)
    assert f"base.jsonl is of another {named}: asked again" in capsys.readouterr().out
    assert len(seeds) == 2 + change.get("samples", 2)
    assert kept.read_bytes() != before


def test_a_file_of_another_kind_is_left_alone(kept_answers, examples, writes, tmp_path):
    seeds, kept = writes("1", "2", "3"), tmp_path / "metrics.jsonl"
    for content in ([{"step": 1}], [], [[1]], [{"identity": 3}]):
        write_jsonl(kept, content)
        with pytest.raises(ValueError, match=r"metrics\.jsonl holds no kept answers"):
            kept_answers(examples, kept)
        assert read_jsonl(kept) == content
    assert seeds == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines, lines[1]],
        lambda lines: [lines[0], *lines[:0:-1]],
        lambda lines: [*lines[:-1], [1]],
        lambda lines: [*lines[:-1], {"id": "pens/3"}],
    ],
    ids=["one too many", "another order", "no object", "half a record"],
)
def test_a_damaged_file_is_an_error(kept_answers, examples, writes, tmp_path, damage):
    seeds, kept = writes("1", "2", "3"), tmp_path / "base.jsonl"
    kept_answers(examples, kept)
    write_jsonl(kept, damage(read_jsonl(kept)))
    with pytest.raises(ValueError, match=r"base\.jsonl is damaged: .*; remove it"):
        kept_answers(examples, kept)
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join([lines[0], lines[1][:-9], b"\n", *lines[2:]]))
    with pytest.raises(ValueError, match=r"base\.jsonl:2: expected one JSON value"):
        kept_answers(examples, kept)
    assert len(seeds) == 2


@pytest.mark.parametrize("cut", [1, 9, 300, 700])
def test_a_round_that_a_kill_cut_off_is_asked_again(kept_answers, examples, writes, tmp_path, cut):
    seeds, kept = writes("1", "2", "3"), tmp_path / "base.jsonl"
    answers, whole = kept_answers(examples, kept), kept.read_bytes()
    kept.write_bytes(whole[:-cut])
    assert kept_answers(examples, kept) == answers
    assert kept.read_bytes() == whole
    assert seeds == [5, 6, 6]


def test_requests_that_make_no_sense(kept_answers, examples, writes):
    seeds = writes("1", "2", "3")
    for given, changes, message in (
        (examples, {"decoding": DECODING}, "temperature is 0"),
        (examples, {"samples": 0}, "samples is 0"),
        ((), {}, "got 0 examples"),
        ([*examples, examples[0]], {}, "'pens/1' repeats"),
    ):
        with pytest.raises(ValueError, match=message):
            kept_answers(given, None, **changes)
    assert seeds == []


WORDS = ("1 + 2 = 3", "1 + 2 = 33", "none")
WORDED = replace(HASH, schema=lambda example: WORDS)
CONSTRAINED = replace(DECODING, constrained=True)


def test_constrained_answers_are_what_the_tasks_schema_allows(ref, examples):
    """What is allowed stays as the model writes it; what is not, it writes otherwise."""
    free, held = (ask(ref, WORDED, examples, how) for how in (DECODING, CONSTRAINED))
    assert all(held[0][key] == free[0][key] for key in ANSWER_KEYS)
    assert held[0]["completion"] == "1 + 2 = 3"
    assert not {one["completion"] for one in free[1:]} & {*WORDS}
    assert {one["completion"] for one in held} <= {*WORDS}
    assert not any(one["truncated"] for one in held)
    drawn = replace(CONSTRAINED, temperature=1.0)
    sampled = ask(ref, WORDED, examples, drawn, samples=2)
    assert {one["completion"] for one in sampled} <= {*WORDS}
    (stage,) = evaluate_stages(ref, {"x": (WORDED, CONSTRAINED)}, examples)
    assert [one["completion"] for one in stage.records] == [one["completion"] for one in held]
    assert stage.metrics["decoding"]["constrained"] is True


def test_each_example_has_a_grammar_of_its_own(ref, examples):
    task = replace(HASH, schema=lambda example: (f"it is {example.reference}",))
    asked = ask(ref, task, examples, CONSTRAINED)
    assert [one["completion"] for one in asked] == [f"it is {one.reference}" for one in examples]


def test_no_model_is_asked_what_no_grammar_enforces(ref, examples, writes):
    seeds = writes("1", "2", "3")
    lists = {"type": "array", "items": {"type": "null"}, "uniqueItems": True}
    schemas = {examples[0].id: WORDS, examples[1].id: WORDS, examples[2].id: lists}
    mixed = replace(HASH, schema=lambda example: schemas[example.id])
    with pytest.raises(ValueError, match="task gsm8k/hash, example pens/3: #: uniqueItems is not"):
        ask(ref, mixed, examples, CONSTRAINED)
    with pytest.raises(ValueError, match="task gsm8k/hash has no schema"):
        ask(ref, HASH, examples, CONSTRAINED)
    assert seeds == []


def test_a_grammar_belongs_to_constrained_decoding_and_to_no_other(ref, prompts):
    with pytest.raises(ValueError, match="constrained is True, with no grammars"):
        generate(ref, prompts, CONSTRAINED)
    grammars = [compile_grammar(WORDS, ref.tokenizer)] * len(prompts)
    with pytest.raises(ValueError, match="constrained is False, with grammars"):
        generate(ref, prompts, DECODING, grammars)


def test_answers_at_another_rope_factor_are_asked_again(
    kept_answers, examples, writes, tmp_path, capsys
):
    """The factor is in no weight, so the hash of the weights does not say it."""
    seeds, kept = writes("1", "2", "3"), tmp_path / "base.jsonl"
    four = {"model": SimpleNamespace(config=SimpleNamespace(global_scale_factor=4.0))}
    for ref, named in (({}, ""), (four, "rope_factor"), (four, None), ({}, "rope_factor")):
        capsys.readouterr()
        kept_answers(examples, kept, ref=ref)
        said = capsys.readouterr().out
        assert ("6 of 6 answers were there already" in said) == (named is None)
        assert (f"is of another {named}: asked again" in said) == bool(named)
    assert len(seeds) == 6 and read_jsonl(kept)[0]["identity"].get("rope_factor") is None


def test_constrained_answers_are_kept_apart(ref, examples, writes, tmp_path, capsys):
    """And those of earlier runs, which knew of no grammars, are still found."""
    seeds, kept = writes("1", "2", "3"), tmp_path / "base.jsonl"
    ask(ref, WORDED, examples, DECODING, kept=kept)
    identity = read_jsonl(kept)[0]["identity"]
    known = {"temperature", "top_p", "max_new_tokens", "batch_size", "seed"}
    assert {*identity} == {"model", "model_sha256", "examples", "decoding", "samples"}
    assert {*identity["decoding"]} == known
    for task, how, named in (
        (WORDED, DECODING, "3 of 3 answers were there already"),
        (WORDED, CONSTRAINED, "another decoding, schemas: asked again"),
        (WORDED, CONSTRAINED, "3 of 3 answers were there already"),
        (replace(HASH, schema=lambda one: WORDS[:2]), CONSTRAINED, "another schemas: asked again"),
    ):
        capsys.readouterr()
        ask(ref, task, examples, how, kept=kept)
        assert named in capsys.readouterr().out
    assert len(seeds) == 3


@pytest.fixture
def probe(ref, examples):
    return make_probe(ref, LAST, examples, max_new_tokens=20)


@pytest.fixture
def model(overfitted):
    """A copy that a test may change."""
    return nnx.clone(overfitted[0])


def forget_all(model):
    """Set all weights to 0, as an update would: in the same object."""
    nnx.update(model, jax.tree.map(lambda weight: 0 * weight, nnx.state(model)))


def test_a_probes_headline_is_that_of_the_evaluation(probe, model, ref, examples):
    stages = {"x": (LAST, DECODING)}
    (stage,) = evaluate_stages(replace(ref, model=model), stages, examples)
    assert probe(model) == stage.metrics["answer_accuracy"] == pytest.approx(2 / 3)


def test_a_probe_takes_the_mean_of_any_headline(slots, writes, ref_of):
    writes('{"x": 1, "y": 2}')
    example = Example(id="a", prompt="x is 1", completion="", reference={"x": 1})
    probe = make_probe(ref_of(), slots, [example], max_new_tokens=20)
    assert probe(ref_of().model) == 2 / 3


def test_changed_weights_of_the_same_model_are_seen(probe, model):
    assert probe(model) == pytest.approx(2 / 3)
    forget_all(model)
    assert probe(model) == 0


def test_another_model_is_asked_as_itself(probe, model):
    forgetful = nnx.clone(model)
    forget_all(forgetful)
    assert [probe(model), probe(forgetful), probe(model)] == pytest.approx([2 / 3, 0, 2 / 3])


def test_only_the_first_call_compiles(probe, new_model):
    model = new_model(num_layers=2)  # of a form that no other test has compiled
    first = CompilationCounter()
    probe(model)
    assert first.count > 0
    forget_all(model)
    second = CompilationCounter()
    probe(model)
    assert second.count == 0


def test_a_rule_is_a_stage_as_a_model_is(examples):
    """What it writes is scored, and compared with models that were asked the same."""
    rule = stage_of_rule("rule", lambda one: f"#### {one.reference}", HASH, examples, DECODING)
    assert (rule.name, rule.metrics["answer_accuracy"], rule.seconds) == ("rule", 1.0, 0.0)
    assert (rule.metrics["n"], [*rule.by_group]) == (3, ["9", "10"])
    assert rule.metrics["truncation_rate"] == 0
    kept = [json.loads(json.dumps(to_jsonable(one))) for one in rule.records]
    assert all({*one} == KEYS for one in kept)
    assert [one["prompt"] for one in kept] == task_prompts(HASH, examples)
    assert {one["max_new_tokens"] for one in kept} == {NEW_TOKENS}
    silent = stage_of_rule("silent", lambda one: "", HASH, examples, DECODING)
    assert silent.metrics["answer_accuracy"] == 0


def test_a_rule_on_no_examples_is_refused():
    with pytest.raises(ValueError, match="got 0 records"):
        stage_of_rule("rule", str, HASH, (), DECODING)

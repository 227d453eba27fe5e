"""Two real models as verifiers, behind two real servers of llama.cpp on this machine.

Models so small cannot verify, and are found out: what must hold is that each known proof has an
outcome, that none is trusted that accepts wrong ones, and that nothing is asked twice.
"""

import os

import pytest

from nblib.evaluation.verifier import Verifier, calibrate_verifier, check_independent
from nblib.files import read_jsonl
from nblib.report.verifying import verifier_tables
from nblib.sources.endpoint import Client
from nblib.sources.inequalities import inequalities
from nblib.sources.served_models import names_of, served_model
from nblib.tasks.known_proofs import known_proofs

RIGHT, WRONG = (int(n) for n in os.environ.get("NBLIB_KNOWN_PROOFS", "6,9").split(","))
MODELS = ("GEMMA", "SMOLLM")
ROWS = inequalities(80, seed=0, split="train")
MAX_TOKENS = 64


def verifier_at(endpoint, shots, path=None):
    return Verifier(Client(endpoint, path=path), shots, max_tokens=MAX_TOKENS)


@pytest.mark.parametrize("name", MODELS)
def test_a_real_model_is_found_out(name, servers, tmp_path):
    shots, known = known_proofs(ROWS[:20], 1, 2), known_proofs(ROWS[20:], RIGHT, WRONG)
    path = tmp_path / "verifier.jsonl"
    verifier = verifier_at(servers(name), shots, path)
    found = calibrate_verifier(verifier, known)
    assert sum(found.outcomes.values()) == found.proofs == RIGHT + WRONG
    assert "unsent" not in found.outcomes and not found.is_trusted
    sent = verifier.client.budget.sent
    assert sent == len(read_jsonl(path)) >= found.proofs
    again = verifier_at(servers(name), shots, path)
    assert calibrate_verifier(again, known) == found
    assert again.client.budget.sent == 0  # nothing is asked twice
    assert servers.key not in path.read_text()
    (table,) = verifier_tables(found, name.lower())
    print(f"\n{table.markdown()}")


@pytest.mark.parametrize("name", MODELS)
def test_a_real_context_is_known_and_a_prompt_beyond_it_is_refused(name, servers, tmp_path):
    endpoint, path = servers(name), tmp_path / "verifier.jsonl"
    assert served_model(endpoint).context == servers.context
    shots = known_proofs(ROWS[:40], 16, 16)
    with pytest.raises(ValueError, match=f"32 worked .* is served with {servers.context:,}"):
        verifier_at(endpoint, shots, path).ask([known_proofs(ROWS[40:], 1, 0)[0].claim])
    assert not path.exists()


def test_real_servers_are_told_apart(servers):
    names = {name: names_of(servers(name)) for name in MODELS}
    check_independent(servers("GEMMA"), names["SMOLLM"])
    for name in MODELS:
        with pytest.raises(ValueError, match="is the model that wrote the proofs"):
            check_independent(servers(name), names[name])

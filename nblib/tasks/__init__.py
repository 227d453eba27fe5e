"""What is asked, how the answer is written, how it is scored, and what a score is worth.

A task is one frozen value (`task`): `gsm8k`, `envelope`. Of an answer that is a number, `formats`
says how it is written, `numbers` reads it, `scoring` scores it; JSON is read by `json_text` and
judged by `json_schema`; a proof is read by `proof_text` and checked by `proof_check`. Reward and
evaluation both use these and nothing else. `rewards` weighs the score; it never reads an answer of
its own. Nothing here imports jax.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "counterexamples": "find_counterexample truth_of",
        "envelope": "ENVELOPE notes_metrics",
        "envelope_rows": "normalise_envelopes",
        "extraction": "EXTRACTION",
        "extraction_kinds": "page_kinds",
        "extraction_rows": "normalise_extractions",
        "gsm8k": "GSM8K",
        "known_proofs": "Claim KnownProof",
        "lexicon": "Lexicon",
        "normal_form": "statement_key template_key",
        "proof_check": "check_proof",
        "proof_prose": "in_prose",
        "proofs": "PROOFS proof_lines",
        "registry": "get_task",
        "review": "apply_review read_review",
        "rewards": "reward_function reward_table reward_weights",
        "task": "Example Metric Score Task check_task choose_examples",
    },
)

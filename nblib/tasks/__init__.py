"""What is asked, how the answer is written, how it is scored, and what a score is worth.

One file per task (`gsm8k`); a task is one frozen value (`task`). `formats` says how an answer is
written, `numbers` reads it, `scoring` scores it: reward and evaluation both use these and nothing
else. `rewards` weighs the score; it never reads an answer of its own. Nothing here imports jax.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "envelope": "ENVELOPE notes_metrics",
        "envelope_rows": "normalise_envelopes",
        "gsm8k": "GSM8K",
        "registry": "get_task",
        "rewards": "reward_function reward_table reward_weights",
        "task": "Example Metric Score Task check_task choose_examples",
    },
)

"""What is asked, how the answer is written, how it is scored, and what a score is worth.

One file per task (`gsm8k`); a task is one frozen value (`task`). `formats` says how an answer is
written, `numbers` reads it, `scoring` scores it: reward and evaluation both use these and nothing
else. `rewards` weighs the judgement; it never reads an answer of its own. Nothing here imports jax.
"""

"""What is asked, how the answer is written, and how it is scored.

One file per task (`gsm8k`); a task is one frozen value (`task`). `formats` says how an answer is
written, `numbers` reads it, `scoring` judges it: reward and evaluation both use these and nothing
else. Nothing here imports jax.
"""

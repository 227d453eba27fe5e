"""The library that the notebooks are made of: from raw rows to a Gemma 3 that shows its work.

Importing `nblib` imports nothing else: no jax, no device, no logging set-up. Import the room that
is needed: `nblib.sources`, `tasks`, `tokens`, `models`, `training`, `evaluation`, `delivery`, or
`nblib.runs` for a run's folder.
"""

__version__ = "0.1.0"
# Owner and name at GitHub; `make sync` brings the notebooks' badges and install cells up to it.
REPOSITORY = "nblib-suite/nblib"

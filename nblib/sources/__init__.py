"""Rows: where they come from (built-in word problems, local files, hubs), checked and hashed.

Imports no jax, and no data library until one is asked for.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "builtin": "composed_rows",
        "datasets": "get_dataset",
        "endpoint": "Client endpoint_from_environment",
        "endpoint_cache": "Budget Request",
        "foundation": "foundation_rows",
        "served_models": "names_of served_model",
        "rows": "Row split_validation",
        "wordproblems": "word_problems",
    },
)

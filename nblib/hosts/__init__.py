"""The machine a notebook runs on: packages, host, session, settings, inputs from earlier sessions.

`install` is imported before anything is installed; so this room imports nothing by itself.
"""

from nblib import public_names

__getattr__, __all__, __dir__ = public_names(
    __name__,
    {
        "inputs": "find_start",
        "ladder": "find_candidates other_versions",
        "session": "begin check_disk_space",
        "settings": "EvalSettings GrpoSettings SftSettings",
        "settings_foundation": "FoundationSettings",
    },
)

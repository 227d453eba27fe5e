"""Preflight: whether a run fits a machine and how long it takes, known before it starts.

`plan` reads what a notebook would do, `programs` lowers its real steps without weights, `compiled`
compiles them for a machine of `targets`, `checks` tries what needs no compiler, `flight` puts it
together and searches settings that fit.
"""

"""Preflight: does a run fit a machine, and how long does it take, answered before it starts.

`workload` reads what a notebook would do; `programs` lowers its real steps without weights;
`compiled` compiles them for a machine of `targets`, `measured` times them on this one; `checks`
tries what needs no compiler; `command` makes a `report` of it and searches settings that fit.
"""

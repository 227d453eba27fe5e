"""Preflight: does a run fit a machine, and how long does it take, answered before it starts.

`workload` reads what a notebook would do; `programs` lowers its real steps without weights;
`compiled` compiles them for a machine of `targets`; `checks` tries what needs no compiler;
`command` measures an SFT on this machine, searches settings that fit, and makes a `report`.
"""

"""Preflight: does a run fit a machine, and how long does it take, answered before it starts.

`workload` reads what a notebook would do; `programs` lowers its real steps without weights;
`compiled` compiles them for a machine of `targets`; `checks` tries what needs no compiler; `search`
finds settings that fit, and the fastest; `command` measures an SFT on this machine, or has it
compiled, and makes a `report`.
"""

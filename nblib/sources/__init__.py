"""Rows: where they come from (built-in word problems, local files, hubs), checked and hashed.

Imports no jax, and no data library until one is asked for.
"""

"""Tools of a checkout: run notebooks headless, build and push kernels, publish, preflight.

No notebook imports this room; what a running notebook needs of its machine is in `hosts`.
"""

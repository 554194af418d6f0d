"""Plants faults in the core modules, one at a time; lists those that no test sees.

`python -m tests.mutation` (`make test-mutants`) takes hours. `--list` shows the faults
and runs nothing, `--modules=masks/_k_largest,...` restricts them, `--number` sets how
many each module gets. The repository is copied; nothing in it is changed.
"""

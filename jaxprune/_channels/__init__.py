"""Channel identities through a jaxpr: the machinery behind `graph` and `compaction`.

`atoms` holds identities and what is known of them, `flow` pushes them through a
program, `rules_*` are the rules, one per primitive, and `evaluate` runs a program whose
channels have been removed. Nothing here is public.
"""

"""Channel identities through a jaxpr: atoms, the flow, groups, evaluation."""

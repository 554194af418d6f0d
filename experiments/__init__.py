"""Experiments with `jaxprune`: data, models, configs and one training loop."""

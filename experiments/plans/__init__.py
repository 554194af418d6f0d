"""From a config to a `Plan`: the methods, and the channels that some prune."""

"""Many runs: which there are, the processes that run them, and a search."""

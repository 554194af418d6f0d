"""Measurements of speed and memory; never run as tests."""

COMMANDS = {
    name.replace("_", "-"): (f"benchmarks.{name}", about)
    for name, about in {
        "suite": "all of it, with sizes for this machine",
        "training_step": "a training step with each method against the dense step",
        "growth": "bytes that a method's update moves, by the number of parameters",
        "operations": "seconds of tracing, ranking, removing and writing",
        "input_pipeline": "pictures a second that the input of ImageNet gives",
        "weak_scaling": "a step with each method on 1, 2, 4 and 8 CPU devices",
        "compaction": "compact networks against dense ones",
        "latency": "how well the latency cost predicts",
        "trace_channels": "seconds that tracing and grouping take",
        "keep_ratio_solver": "the solver of keep probabilities against SciPy's",
        "admm_limits": "how near ADMM comes to the optimum",
        "one_shot": "the loss of a decoder that is pruned without training",
    }.items()
}
"""The module of each benchmark in `experiments`, and what it measures."""

"""Every field of a config, with its default and what it means.

A config file of a run starts from `get_config()` here and changes what differs; no
other file declares a field or gives a default.
"""

from ml_collections import ConfigDict, config_dict

from experiments.plans import weight_plans


def get_config() -> weight_plans.Config:
    """Returns the default config: LTP on digits, to a twentieth of the weights."""
    config = ConfigDict()

    # Data. `data_dir` is where TFDS keeps its data; digits are prepared there.
    config.dataset = "digits"
    config.data_dir = "data"
    config.image_size = 0  # Side to resize to, in pixels; 0 leaves images as they are.
    config.augment = True  # What the data set's papers use; nothing for digits.

    # Network.
    config.model = "cnn"
    config.seed = 0
    config.pretrained = ""  # Workdir of a finished run to start from.

    # Length of the phases, in epochs; 0 leaves a phase out.
    config.dense_epochs = 6.0
    config.prune_epochs = 22.0
    config.finetune_epochs = 12.0

    # Weights: SGD with momentum, cosine learning rates.
    config.batch_size = 32
    config.learning_rate = 0.03
    config.end_learning_rate_factor = 0.1  # At the end of pruning, of learning_rate.
    config.learning_rate_drops = ()  # Epochs of the run: a tenth from there; no cosine.
    config.finetune_learning_rate = 0.02
    config.momentum = 0.9
    config.nesterov = True
    config.weight_decay = 5e-4  # On kernels,
    config.decay_everything = False  # or on everything.
    config.label_smoothing = 0.1

    # Pruning. `sparsity` is the fraction of zeros to end with. If `penalty_weight` is
    # a number, the loss plus it times the keep ratio decides the size instead.
    config.plan = weight_plans.ltp
    config.sparsity = 0.95
    config.penalty_weight = config_dict.placeholder(float)
    config.solver = (
        ""  # Or "dual_ascent", "admm": how LTP, STR and LATS find `sparsity`.
    )
    config.min_keep_ratio = 1e-3  # What every layer keeps at minimum.
    config.ramp_begin = 0.0  # Of the cubic ramp of the keep ratio, as a fraction
    config.ramp_end = 0.7  # of the pruning phase.

    # Channels: the most that each cost may be, as a fraction of the dense cost. If any
    # is a number, channels are pruned, and `sparsity` is ignored.
    config.budget = ConfigDict()
    config.budget.macs = config_dict.placeholder(float)
    config.budget.parameters = config_dict.placeholder(float)
    config.budget.bytes = config_dict.placeholder(float)
    config.budget.latency = config_dict.placeholder(float)  # On this machine.
    config.latency_batch = 64  # Images in a call that is timed.
    config.latency_widths = 24  # Compact networks that are timed, before training.
    config.held_out = 0.0  # Of the training data, for what is not trained by gradients
    config.channel_multiple = 1  # on it. Numbers of channels are multiples of this.

    # Differentiable sparsity allocation; see `jaxprune.dsa`, and `channel_plans` for
    # what can stand for the importance of channels.
    config.importance = "norm_scale"
    config.sharpness = 2.0
    config.sharpness_growth = 1.6  # Per epoch.
    config.keep_floor = 0.01
    config.init_logit = 3.0
    config.ratio_every = 2  # Steps of the weights for one of the keep ratios.
    config.ratio_learning_rate = 0.1

    # Other methods for channels; see `channel_plans`.
    config.channel_penalty = 0.003  # Of `group_lasso` and `morphnet`.
    config.round_to_budget = (
        True  # Whether these meet the budget, or keep what is left.
    )
    config.trials = 200  # Of `evolution`.
    config.allocation = ""  # Of `given`: the folder of a run whose widths are taken,
    config.gated = False  # and whether weights are trained under gates.

    # Soft thresholds; see `jaxprune.soft_thresholding`. If `final_threshold` is a
    # number it is the threshold to end with, and `sparsity` is ignored.
    config.final_threshold = config_dict.placeholder(float)
    config.homotopy_beta = 0.01  # L1 coefficient at the end / at the start, of `pgh`.

    # Scores of weights by their effect on the loss; see `jaxprune.snip`.
    config.score_batches = 8

    # What the fine-tuning starts from: the weights that pruning left, or, with
    # `rewind`, those that pruning started from, under the masks.
    config.rewind = False

    # Learned thresholds; see `jaxprune.ltp` and `soft_threshold_reparameterization`.
    config.temperature = 0.1
    config.init_threshold = 0.05
    config.init_threshold_logit = -5.0  # Of STR.
    config.threshold_learning_rate = 0.05
    config.multiplier_rate = 0.1

    # The trail. `lowest_rung` is the last keep ratio of the ladder without a target.
    config.trail_every = 5  # Steps between looks at the keep ratio.
    config.lowest_rung = 1 / 1024

    # Running.
    config.parallel = "jit"  # Or "pmap".
    config.eval_batch_size = 360
    config.log_every = 10  # Steps.
    config.eval_every = 100
    config.checkpoint_every = 200
    config.checkpoints_kept = 2
    config.progress = True
    return config

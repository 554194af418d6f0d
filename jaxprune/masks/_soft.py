"""What soft thresholds share when their masks become final."""

from collections.abc import Mapping

import jax

from jaxprune import tree
from jaxprune.base._protocols import Masks, Params
from jaxprune.masks import _select as masks

Leaves = Mapping[str, jax.Array]


def soft_threshold_masks(
    params: Params,
    seen: Leaves,
    scores: Leaves,
    keep_ratio: float | None,
    min_keep_ratio: float,
) -> Masks:
    """Keeps what the network sees, or the highest scores to an asked keep ratio.

    Args:
      params: the latent weights.
      seen: the selected leaves under their thresholds, by name.
      scores: how far each weight is above its threshold, by name.
      keep_ratio: of the selected weights; None keeps those that are not zero.
      min_keep_ratio: what every leaf keeps at the least.
    """
    if keep_ratio is None:
        kept = {
            name: (leaf != 0)
            | masks.floor_masks(scores[name], min_keep_ratio=min_keep_ratio)
            for name, leaf in seen.items()
        }
    else:
        kept = masks.global_masks(
            dict(scores), keep_ratio=keep_ratio, min_keep_ratio=min_keep_ratio
        )
    return masks.fill(params, kept)


def finalized(params: Params, seen: Leaves, kept: Masks) -> Params:
    """The network as it was seen, under its masks: kept weights stay shrunk."""
    return masks.apply_masks(tree.replace(params, seen), kept)

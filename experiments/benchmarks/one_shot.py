"""The loss of a trained decoder that is pruned in one shot, without any training.

Command:
    python -m experiments bench one-shot

A decoder of bytes is trained on source files of Python's standard library, every tenth
of which is held out. Then the kernels of its layers are pruned: by magnitude, by Wanda
and by SparseGPT, each layer by the same fraction, with statistics of training data that
are taken once, or anew for every layer. Losses are of held-out bytes, in nats.
"""

import argparse
import functools
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprune
from experiments.benchmarks.decoder import Decoder
from jaxprune import masks
from jaxprune.methods import layer_by_layer

_WARM_UP = 50


def source_bytes(*, held_out: bool) -> np.ndarray:
    """Return the bytes of the modules of the standard library, one after the other."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    chosen = [p for i, p in enumerate(paths) if (i % 10 == 0) == held_out]
    return np.frombuffer(b"".join(path.read_bytes() for path in chosen), np.uint8)


def _batches(text: np.ndarray, rng: np.random.Generator, number: int, shape) -> Any:
    """Return random pieces of text, whole numbers, shape (number, batch, length)."""
    batch, length = shape
    starts = rng.integers(0, len(text) - length, (number, batch, 1))
    return jnp.asarray(text[starts + np.arange(length)], jnp.int32)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the loss of the dense network and of each pruned one."""
    length = options.length
    model = Decoder(256, options.width, options.layers, options.heads, length)
    apply_fn = functools.partial(model.apply, train=False)
    rng = np.random.default_rng(options.seed)
    pieces = functools.partial(_batches, rng=rng, shape=(options.batch, length + 1))
    known, unknown = source_bytes(held_out=False), source_bytes(held_out=True)

    def loss(params, text):
        logits: Any = apply_fn({"params": params}, text[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])
        return jnp.mean(losses)

    params = _trained(model, loss, pieces(known, number=options.steps), options)
    held_out = pieces(unknown, number=options.test)
    mean_loss = jax.jit(lambda p: jnp.mean(jax.lax.map(lambda x: loss(p, x), held_out)))

    def network(params, text):
        return apply_fn({"params": params}, text)

    data = list(pieces(known, number=options.calibration)[:, :, :-1])
    statistics = jaxprune.calibrate(network, params, data, gram=True)
    yield {"method": "dense", "sparsity": 0.0, "loss": float(mean_loss(params))}
    for sparsity in map(float, options.sparsities.split(",")):
        ratio = masks.keep_ratio_of(sparsity)
        pruners = {
            "magnitude": jaxprune.magnitude(
                sparsity=sparsity, distribution=masks.uniform
            ),
            "wanda": jaxprune.wanda(statistics),
            "sparse_gpt": jaxprune.sparse_gpt(statistics),
        }
        for name, pruner in pruners.items():
            kept = pruner.masks(params, {}, keep_ratio=ratio)
            pruned = pruner.final_weights(params, {}, kept)
            found = float(mean_loss(pruned))
            yield {"method": name, "sparsity": sparsity, "loss": found}
        for method in (jaxprune.wanda, jaxprune.sparse_gpt) if options.anew else ():
            final = layer_by_layer(
                method, network, params, data, keep_ratio=ratio, gram=True
            )
            name = f"{method.__name__}, layer by layer"
            found = float(mean_loss(final.params))
            yield {"method": name, "sparsity": sparsity, "loss": found}


def _trained(model: Decoder, loss, batches, options: argparse.Namespace) -> Any:
    """Return the parameters after one step for each batch."""
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(jax.random.key(options.seed), batches[0, :, :-1])["params"]
    rate = optax.warmup_cosine_decay_schedule(
        0.0, options.rate, min(_WARM_UP, len(batches) // 2), len(batches)
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, text):
        updates, state = tx.update(jax.grad(loss)(params, text), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for text in batches:
        params, state = step(params, state, text)
    return params


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what this benchmark can be asked."""
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calibration", type=int, default=16, help="batches")
    parser.add_argument("--test", type=int, default=32, help="batches")
    parser.add_argument("--sparsities", default="0.5,0.6,0.7", help="with commas")
    parser.add_argument(
        "--anew", action="store_true", help="also with new statistics for each layer"
    )

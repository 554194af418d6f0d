"""The picture of channel groups."""

import io
import sys
import xml.etree.ElementTree as ElementTree

import jax.numpy as jnp
import pytest

from jaxprune.channels import trace_channels
from jaxprune.channels._show import drawing
from tests.channels.graph_test import groups_of, trace_plain
from tests.support import networks


def resnet20():
    model = networks.ResNet(blocks_per_stage=3)
    variables, x = networks.abstract(model, train=False)
    return trace_channels(lambda v, x: model.apply(v, x, train=False), variables, x)


def dense_network():
    def mlp(p, x):
        return jnp.tanh(x @ p["w1"] + p["b"][None]) @ p["w2"]

    return trace_plain(mlp, w1=(3, 8), b=(8,), w2=(8, 2))


def test_rows_are_the_weights_that_make_and_read():
    first, last = drawing.rows_of(dense_network())
    assert first == ("w1", (3, 8), (), ("w1:1",), ("input",))
    assert last == ("w2", (8, 2), ("w1:1",), (), ("output",))


def test_rows_of_a_residual_network_are_in_program_order():
    rows = drawing.rows_of(resnet20())
    # 21 convolutions with the two shortcuts, and the classifier.
    assert len(rows) == 22
    assert [rows[0].leaf, rows[1].leaf, rows[-1].leaf] == [
        "params/conv0/kernel",
        "params/stage1_block1/conv1/kernel",
        "params/dense/kernel",
    ]
    assert (rows[0].ends, rows[-1].ends) == (("input",), ("output",))


@pytest.mark.parametrize("name", ["resnet18", "densenet", "gpt", "unet"])
def test_rails_of_one_column_do_not_touch(name):
    spans = drawing.spans_of(drawing.rows_of(groups_of(name)))
    columns = drawing.columns_of(spans)
    assert columns.keys() == spans.keys()
    for one, (first, last) in spans.items():
        for other, (start, end) in spans.items():
            if other != one and columns[other] == columns[one]:
                assert last < start or end < first


def test_the_picture_is_svg_with_the_size_of_every_group():
    graph = resnet20()
    figure = graph.plot()
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    assert ElementTree.fromstring(file.getvalue()).tag.endswith("svg")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    sizes = [str(group.size) for group in graph.groups.values()]
    assert [text for text in texts if text.isdigit()] == sizes
    assert {"params/conv0/kernel", "3×3×3×16", "input", "output"} <= set(texts)
    # Nothing lies outside the paper.
    left, right = axes.get_xlim()
    assert all(left <= text.get_position()[0] <= right for text in axes.texts)


def test_a_network_without_groups_can_be_drawn():
    graph = trace_plain(lambda p, x: x @ p["w"], w=(3, 2))
    texts = [text.get_text() for text in graph.plot().axes[0].texts]
    assert texts[:3] == ["w", "3×2", "input, output"]


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxprune\[plot\]'"):
        dense_network().plot()

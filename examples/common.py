"""What the training examples share: data, binarisation, the training loop, export and its check."""

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrize

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
INPUT, OUTPUT = "image", "logits"

LayerT = TypeVar("LayerT", bound=nn.Module)


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [N, 1, 28, 28]; labels int64 [N]."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def load_dataset(path: Path) -> Dataset:
    """Read an npz with `x_train y_train x_test y_test`, or a folder that holds the four original idx .gz files."""
    if path.is_dir():
        arrays = {key: _read_idx(path / name) for key, name in IDX_FILES.items()}
    else:
        with np.load(path) as npz:
            arrays = {key: npz[key] for key in IDX_FILES}
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return Dataset(
        **{key: t.unsqueeze(1) if key.startswith("x") else t.long() for key, t in tensors.items()},
    )


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an idx file of bytes: 0, 0, type, rank, then rank big-endian int32 sizes, then the data."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Value of `hard`, gradient of `soft`. Equal to `hard` only up to rounding, so for training only."""
    return soft + (hard - soft).detach()


class BinaryWeight(nn.Module):
    """Parametrization w -> sign(w), times the mean of |w| over each output channel if `scaled`."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled

    def forward(self, w: Tensor) -> Tensor:
        hard = torch.where(w >= 0, 1.0, -1.0)
        if self.scaled:
            hard = hard * w.abs().mean(dim=tuple(range(1, w.dim())), keepdim=True)
        return straight_through(hard, w) if self.training else hard


def binary(layer: LayerT, scaled: bool) -> LayerT:
    """Give a convolution or linear layer binary weights."""
    parametrize.register_parametrization(layer, "weight", BinaryWeight(scaled))
    return layer


def train(
    model: nn.Module,
    data: Dataset,
    prepare: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    mirror: bool,
) -> None:
    """Adam with one cosine cycle; `prepare` turns uint8 images into the model's input.

    `mirror` flips every image left to right in half of the batches.
    """
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = len(data.x_train) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * steps)
    for epoch in range(epochs):
        start = time.monotonic()
        model.train()
        total = 0.0
        for index in torch.randperm(len(data.x_train))[: steps * batch].view(steps, batch):
            x = data.x_train[index]
            if mirror and torch.rand(()) < 0.5:
                x = x.flip(-1)
            loss = F.cross_entropy(model(prepare(x)), data.y_train[index])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            total += loss.item()
        accuracy = _accuracy(model, data, prepare)
        seconds = time.monotonic() - start
        print(f"epoch {epoch + 1}/{epochs}  loss {total / steps:.4f}  test {accuracy:.2%}  {seconds:.0f} s", flush=True)


@torch.no_grad()
def _accuracy(model: nn.Module, data: Dataset, prepare: Callable[[Tensor], Tensor]) -> float:
    model.eval()
    hits = [
        (model(prepare(x)).argmax(1) == y).sum().item()
        for x, y in zip(data.x_test.split(500), data.y_test.split(500), strict=True)
    ]
    return sum(hits) / len(data.y_test)


def export(model: nn.Module, sample: Tensor, path: Path) -> None:
    """Write the model for one image, with the weights as the constants ±1 or ±alpha and batch norm left as it is."""
    model.eval()
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    program = torch.onnx.export(
        model,
        (sample,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=18,
        dynamo=True,
        optimize=False,  # it would fold batch norm into the weights
        verbose=False,
    )
    assert program is not None
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.save(path)


def write_images(data: Dataset, prepare: Callable[[Tensor], Tensor], path: Path, count: int = 48) -> None:
    """Write test images under the input's name, and `labels`.

    Evenly spaced, since some copies of the data are sorted by class and their first images all look alike.
    """
    index = torch.arange(count) * len(data.x_test) // count
    images = prepare(data.x_test[index]).unsqueeze(1).numpy()
    np.savez_compressed(path, **{INPUT: images, "labels": data.y_test[index].numpy()})


def report(path: Path, data: Dataset, prepare: Callable[[Tensor], Tensor]) -> None:
    """Check the file and print its operators, size, and accuracy in onnxruntime on every test image."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    images: Any = prepare(data.x_test).unsqueeze(1).numpy()
    guesses = np.array([session.run([OUTPUT], {INPUT: image})[0].argmax() for image in images])
    print(" ".join(node.op_type for node in model.graph.node))
    print(f"{path.name}: {path.stat().st_size} bytes, test accuracy {(guesses == data.y_test.numpy()).mean():.2%}")

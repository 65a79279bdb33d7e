"""Train a binary MLP on MNIST and export it to ONNX.

    python train.py --data mnist.npz --out .

The data is MNIST (Y. LeCun, C. Cortes, C. Burges), as in https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz.
`--data` is either that npz with the uint8 arrays `x_train y_train x_test y_test`, or a folder that holds the four
original files `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`.

Writes `mnist_mlp.onnx` and `images.npz`. Needs torch, onnx, onnxscript and onnxruntime.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import binary, export, load_dataset, report, straight_through, train, write_images

WIDTH = 160


class BinarizeInput(nn.Module):
    """Ink (x > 0.5) -> +1, paper -> -1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0.5, 1.0, -1.0)


class Sign(nn.Module):
    """torch.sign, so 0 -> 0; the gradient passes where |x| <= 1."""

    def forward(self, x: Tensor) -> Tensor:
        hard = torch.sign(x)
        return straight_through(hard, x.clamp(-1, 1)) if self.training else hard


def dense(features_in: int, features_out: int) -> nn.Linear:
    return binary(nn.Linear(features_in, features_out, bias=False), scaled=False)


def build() -> nn.Module:
    """float32 [N, 1, 28, 28] in 0..1 -> logits [N, 10]."""
    # fmt: off
    return nn.Sequential(
        BinarizeInput(), nn.Flatten(),
        dense(28 * 28, WIDTH), nn.BatchNorm1d(WIDTH), Sign(),
        dense(WIDTH, WIDTH),   nn.BatchNorm1d(WIDTH), Sign(),
        dense(WIDTH, 10),      nn.BatchNorm1d(10),
    )
    # fmt: on


def to_unit(images: Tensor) -> Tensor:
    """Pixels 0..255 -> 0..1."""
    return images / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()

    torch.manual_seed(0)
    data = load_dataset(args.data)
    model = build()
    train(model, data, to_unit, epochs=args.epochs, batch=128, learning_rate=5e-3, mirror=False)

    path = args.out / "mnist_mlp.onnx"
    export(model, to_unit(data.x_test[:1]), path)
    write_images(data, to_unit, args.out / "images.npz")
    report(path, data, to_unit)


if __name__ == "__main__":
    main()

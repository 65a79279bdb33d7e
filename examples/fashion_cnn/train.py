"""Train a binary CNN on Fashion-MNIST and export it to ONNX.

    python train.py --data fashion_mnist.npz --out .

The data is Zalando Research's Fashion-MNIST (MIT licence), https://github.com/zalandoresearch/fashion-mnist.
`--data` is either an npz with the uint8 arrays `x_train y_train x_test y_test`, or a folder that holds the four
original files `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`.

Writes `fashion_cnn.onnx` and `images.npz`. Needs torch, onnx, onnxscript and onnxruntime.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import binary, export, load_dataset, report, straight_through, train, write_images


class ToFloat(nn.Module):
    """Pixels stay the integers 0..255: with weights ±alpha the first layer then needs integers only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Binarize(nn.Module):
    """x >= 0 -> +1, else -1; the gradient passes where |x| <= 1."""

    def forward(self, x: Tensor) -> Tensor:
        hard = torch.where(x >= 0, 1.0, -1.0)
        return straight_through(hard, x.clamp(-1, 1)) if self.training else hard


def conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """Binary 3x3 convolution; zeros at the border, which are neither +1 nor -1."""
    return binary(nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False), scaled=True)


def build() -> nn.Module:
    """uint8 [N, 1, 28, 28] -> logits [N, 10]."""
    # fmt: off
    return nn.Sequential(
        ToFloat(),
        conv(1, 32), nn.MaxPool2d(2), nn.BatchNorm2d(32),  Binarize(),                   # 14x14
        conv(32, 64),                 nn.BatchNorm2d(64),  Binarize(), nn.MaxPool2d(2),  # 7x7
        conv(64, 64),                 nn.BatchNorm2d(64),  Binarize(),
        conv(64, 128, stride=2),      nn.BatchNorm2d(128), Binarize(), nn.Flatten(),     # 4x4
        binary(nn.Linear(4 * 4 * 128, 10), scaled=True),
    )
    # fmt: on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()

    torch.manual_seed(0)
    data = load_dataset(args.data)
    model = build().to(memory_format=torch.channels_last)
    train(model, data, lambda x: x, epochs=args.epochs, batch=128, learning_rate=2e-3, mirror=True)

    path = args.out / "fashion_cnn.onnx"
    export(model, data.x_test[:1], path)
    write_images(data, lambda x: x, args.out / "images.npz")
    report(path, data, lambda x: x)


if __name__ == "__main__":
    main()

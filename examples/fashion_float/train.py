"""Train a small float CNN with depthwise-separable layers on Fashion-MNIST and export it to ONNX.

    python train.py --data fashion_mnist.npz --out .

What compression and quantization start from: an ordinary float network. The data is Zalando Research's Fashion-MNIST
(MIT licence), https://github.com/zalandoresearch/fashion-mnist; `--data` is as in ../fashion_cnn.

Writes `fashion_float.onnx` and `images.npz`. Needs torch, onnx, onnxscript and onnxruntime.
"""

import argparse
import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import Dataset, export, load_dataset, report, train, write_images


def scaled(x: Tensor) -> Tensor:
    """uint8 images as reals from 0 to 1."""
    return x.float() / 255


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch norm, Relu."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]


def separable(channels_in: int, channels_out: int, stride: int = 1) -> list[nn.Module]:
    """Depthwise 3x3, then 1x1."""
    return [*conv(channels_in, channels_in, 3, stride, channels_in), *conv(channels_in, channels_out, 1)]


def build() -> nn.Module:
    """float [N, 1, 28, 28], 0 to 1 -> logits [N, 10]. 1.35 million multiplications, 25,700 weights."""
    # fmt: off
    return nn.Sequential(
        *conv(1, 16, 3, stride=2),                                             # 14x14
        *separable(16, 48), *separable(48, 64, stride=2),                      # 7x7
        *separable(64, 96), *separable(96, 128),
        nn.AvgPool2d(7), nn.Flatten(), nn.Linear(128, 10),
    )
    # fmt: on


def fuse(model: nn.Module) -> nn.Sequential:
    """Batch norm folded into the convolution before it, as exporters do for inference."""
    layers = list(model.eval().children())
    for i, (a, b) in enumerate(itertools.pairwise(layers)):
        if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d):
            layers[i], layers[i + 1] = nn.utils.fusion.fuse_conv_bn_eval(a, b), nn.Identity()
    return nn.Sequential(*(m for m in layers if not isinstance(m, nn.Identity)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()

    torch.manual_seed(0)
    data: Dataset = load_dataset(args.data)
    model = build().to(memory_format=torch.channels_last)
    train(model, data, scaled, epochs=args.epochs, batch=128, learning_rate=3e-3, mirror=True)

    path = args.out / "fashion_float.onnx"
    export(fuse(model), scaled(data.x_test[:1]), path)
    write_images(data, scaled, args.out / "images.npz")
    report(path, data, scaled)


if __name__ == "__main__":
    main()

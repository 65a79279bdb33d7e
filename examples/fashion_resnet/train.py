"""Train a small residual float CNN on Fashion-MNIST and export it to ONNX.

    python train.py --data fashion_mnist.npz --out .

The second network that compression and quantization start from: what ../fashion_float is not, full 3x3 convolutions
and sums of branches, as in ResNet-8 (He et al., 2016). The data is Zalando Research's Fashion-MNIST (MIT licence),
https://github.com/zalandoresearch/fashion-mnist; `--data` is as in ../fashion_cnn.

Writes `fashion_resnet.onnx` and `images.npz`. Needs torch, onnx, onnxscript and onnxruntime.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import Dataset, export, load_dataset, report, train, write_images


def scaled(x: Tensor) -> Tensor:
    """uint8 images as reals from 0 to 1."""
    return x.float() / 255


class Normed(nn.Module):
    """Convolution, then batch norm, folded into it by `fuse`."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y

    def fuse(self) -> None:
        """As exporters do for inference."""
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Unit(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = Normed(channels_in, channels_out, 3, stride)
        self.second = Normed(channels_out, channels_out, 3)
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else Normed(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


def build() -> nn.Module:
    """float [N, 1, 28, 28], 0 to 1 -> logits [N, 10]. 2.4 million multiplications, 65,792 weights."""
    # fmt: off
    return nn.Sequential(
        Normed(1, 16, 3, stride=2), nn.ReLU(),                # 14x14
        Unit(16, 16), Unit(16, 32, stride=2),                 # 7x7
        Unit(32, 56, stride=2),                               # 4x4
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(56, 10),
    )
    # fmt: on


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

    model.eval()
    for module in list(model.modules()):
        if isinstance(module, Normed):
            module.fuse()
    path = args.out / "fashion_resnet.onnx"
    export(model, scaled(data.x_test[:1]), path)
    write_images(data, scaled, args.out / "images.npz")
    report(path, data, scaled)


if __name__ == "__main__":
    main()

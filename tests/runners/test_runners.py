"""Compile and run a hand-made model on every target that runs here: the same bytes everywhere."""

from __future__ import annotations

import random
import shutil
import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bitc import hostcpu
from bitc.errors import TargetError, ToolchainError, UsageError
from bitc.runners import Runner, RunRequest, available, counting, emulator, open_runner
from bitc.target import Target
from bitc.toolchain import Runnable, Toolchain, build_model

SAMPLE = Path(__file__).parents[1] / "toolchain" / "sample"
OUTPUT = struct.Struct("<4fQ4Iii")
FAULT, ENDLESS, FAIL = 1, 2, 3
WAYS = [
    (name, kind)
    for name in Target.available()
    for kind in ("host", "unicorn", "wasmtime", "qemu")
    if kind == Target.load(name).runner.kind or (kind == "qemu" and Target.load(name).runner.qemu)
]
EMULATED = [way for way in WAYS if way[1] in ("unicorn", "qemu")]
_scratch = TemporaryDirectory(prefix="bitc-test-")


def image(seed: int, mode: int = 0) -> bytes:
    draw = random.Random(seed)
    floats = [draw.uniform(-2, 2) for _ in range(13)] + [1e-40, -0.0, 3e-45]  # two of them subnormal
    return struct.pack("<16f8Ii", *floats, *(draw.getrandbits(32) for _ in range(8)), mode)


INPUTS = [image(seed) for seed in range(4)]


@cache
def build(name: str, hooks: bool = False, cc: str = "zig") -> Runnable:
    out = Path(_scratch.name) / f"{name}-{hooks}-{Path(cc).name}"
    return build_model(Target.load(name), SAMPLE, "sample", out, hooks=hooks, toolchain=Toolchain(cc))


@cache
def runner(name: str, kind: str) -> Runner:
    target = Target.load(name)
    if reason := available(target, kind):
        pytest.skip(f"{kind}: {reason}")
    return open_runner(target, kind)


@cache
def expected() -> list[bytes]:
    """From a WebAssembly engine, which shares no code with the emulators."""
    return open_runner(Target.load("wasm32")).run(RunRequest(build("wasm32"), INPUTS)).outputs


def test_the_reference_is_right() -> None:
    """Integers against Python; floats need rounding to single precision and are left to the comparison of targets."""
    for data, output in zip(INPUTS, expected(), strict=True):
        bits = struct.unpack("<16f8Ii", data)[16:24]
        fields = OUTPUT.unpack(output)
        numerator = (bits[0] ^ 1 << 31) - (1 << 31)
        divisor = bits[1] % 1000 + 1
        assert fields[9] == int(numerator / divisor)
        assert fields[10] == numerator - fields[9] * divisor
        mixed = sum(bits[i % 8] + i for i in range(0, 64, 7)) & 0xFFFFFFFF
        product = (bits[2] * bits[3] + mixed) % (1 << 64)
        assert fields[4] == (product + product // (bits[4] + 3)) % (1 << 64)
        assert fields[8] == sum((bits[i] ^ w).bit_count() for i, w in enumerate((1, 2, 4, 8, 16, 32, 64, 1 << 31)))


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_same_bytes_on_every_target(name: str, kind: str) -> None:
    first = runner(name, kind).run(RunRequest(build(name), INPUTS))
    again = runner(name, kind).run(RunRequest(build(name), INPUTS))
    assert first.outputs == again.outputs == expected()
    assert first.codes == [0] * len(INPUTS)
    assert first.metric == runner(name, kind).metric
    assert first.instructions == again.instructions or kind == "qemu"
    assert first.layers == []
    cost = first.nanoseconds if kind == "host" else first.instructions
    assert cost is not None and cost > 0


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_hooks_see_the_layers(name: str, kind: str) -> None:
    run = runner(name, kind)
    result = run.run(RunRequest(build(name, hooks=True), INPUTS, hooks=True))
    assert result.outputs == expected()
    assert len(result.layers) == len(INPUTS)
    for output, records in zip(expected(), result.layers, strict=True):
        matches, floats, product = output[24:40], output[:16], output[16:24]
        assert [(r.layer, r.data) for r in records] == [(0, matches), (1, floats), (2, product)]
    costs = [r.nanoseconds if kind == "host" else r.instructions for r in result.layers[0]]
    assert all(cost is not None for cost in costs)
    assert costs == sorted(costs)  # type: ignore[type-var]
    if kind != "host":
        plain = run.run(RunRequest(build(name), INPUTS)).instructions
        assert plain is not None and result.instructions is not None
        assert abs(plain - result.instructions) < 0.2 * plain, "hooks are nearly free"


@pytest.mark.parametrize("name", [name for name, kind in EMULATED if kind == "qemu" and (name, "unicorn") in WAYS])
def test_two_emulators_count_the_same(name: str) -> None:
    ours = runner(name, "unicorn").run(RunRequest(build(name), INPUTS))
    theirs = runner(name, "qemu").run(RunRequest(build(name), INPUTS))
    assert ours.instructions is not None and theirs.instructions is not None
    assert abs(ours.instructions - theirs.instructions) <= 1, "the board's counter has a resolution of one"
    assert ours.stack_bytes == theirs.stack_bytes


@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m7", "aarch64", "armv7-neon", "riscv32"])
def test_both_counters_count_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    native = runner(name, "unicorn").run(RunRequest(build(name), INPUTS))
    assert counting._library() is not None, "the C hook was built"
    monkeypatch.setattr(counting, "_library", lambda: None)
    python = open_runner(Target.load(name)).run(RunRequest(build(name), INPUTS))
    assert native == python


def test_the_m55_board_counts_what_unicorn_counts(tmp_path: Path) -> None:
    """unicorn has no M55, so code for an M33 runs on the M55's board: that checks the board's clock."""
    board = tmp_path / "m33-on-m55.toml"
    m33 = Target.load("cortex-m33").toolchain
    board.write_text(
        'extends = "cortex-m55"\nfeatures = ["-mve", "-mvefp", "-fpu64"]\n'
        f'[toolchain]\ntriple = "{m33.triple}"\nflags = {list(m33.flags)}\n'.replace("'", '"')
    )
    target = Target.load(board)
    if reason := available(target, "qemu"):
        pytest.skip(reason)
    model = build_model(target, SAMPLE, "sample", tmp_path / "out")
    ours = open_runner(target, "qemu").run(RunRequest(model, INPUTS[:1])).instructions
    exact = runner("cortex-m33", "unicorn").run(RunRequest(build("cortex-m33"), INPUTS[:1])).instructions
    assert ours is not None and exact is not None and abs(ours - exact) <= 2


def test_a_loop_is_counted_exactly(tmp_path: Path) -> None:
    """n additions more cost exactly n times one iteration, and the machine is built once."""
    folder = tmp_path / "loop"
    folder.mkdir()
    (folder / "loop.h").write_text(
        "#include <stdint.h>\n#define LOOP_ARENA_BYTES 0\n#define LOOP_ARENA_ALIGN 4\n"
        "typedef struct { uint32_t n; } loop_input_t;\ntypedef struct { uint32_t y; } loop_output_t;\n"
        "int loop_run(void *arena, const loop_input_t *in, loop_output_t *out);\n"
    )
    (folder / "loop.c").write_text(
        '#include "loop.h"\nint loop_run(void *arena, const loop_input_t *in, loop_output_t *out) {\n'
        "    (void)arena;\n    out->y = 0;\n"
        "    for (volatile uint32_t i = 0; i < in->n; i++) {\n        out->y += i;\n    }\n    return 0;\n}\n"
    )
    target = Target.load("cortex-m4")
    built = build_model(target, folder, "loop", tmp_path / "out", opt="-O2")
    run = open_runner(target)

    def cost(n: int) -> int:
        result = run.run(RunRequest(built, [n.to_bytes(4, "little")]))
        assert result.outputs == [(n * (n - 1) // 2 & 0xFFFFFFFF).to_bytes(4, "little")]
        assert result.instructions is not None
        return result.instructions

    one = cost(2) - cost(1)
    assert cost(200_001) - cost(1) == 200_000 * one


@pytest.mark.parametrize("name", ["host", "cortex-m4", "wasm32"])
def test_a_rebuilt_model_is_loaded_again(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SAMPLE, folder)
    run = open_runner(Target.load(name))
    outputs = []
    for constant in ("0.7f", "0.8f"):
        text = (SAMPLE / "sample.c").read_text(encoding="utf-8").replace("0.7f", constant)
        (folder / "sample.c").write_text(text, encoding="utf-8")
        built = build_model(Target.load(name), folder, "sample", tmp_path / "out")
        outputs.append(run.run(RunRequest(built, INPUTS)).outputs)
    assert outputs[0] == expected() != outputs[1]


@pytest.mark.parametrize(("name", "kind"), EMULATED)
def test_stack_mark_lies_under_the_estimate(name: str, kind: str) -> None:
    used = runner(name, kind).run(RunRequest(build(name), INPUTS)).stack_bytes
    estimate = build(name).model.stack_bytes("sample_run")
    assert used is not None and estimate is not None
    assert 256 <= used <= estimate, "256 bytes are the model's table"


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_codes_come_back_and_errors_name_the_place(name: str, kind: str) -> None:
    run = runner(name, kind)
    assert run.run(RunRequest(build(name), [image(0, FAIL)])).codes == [7]
    if kind != "host":  # there a fault is one of this process
        with pytest.raises(ToolchainError, match=r"pc=0x[0-9a-f]+") as caught:
            run.run(RunRequest(build(name), [image(0, FAULT)]))
        assert "sample" in caught.value.where and "sample_run" in caught.value.detail
        with pytest.raises(ToolchainError, match="no end after"):
            run.run(RunRequest(build(name), [image(0, ENDLESS)], seconds=0.5))
    assert run.run(RunRequest(build(name), INPUTS)).outputs == expected(), "the runner is still good"


def test_wrong_requests() -> None:
    run = runner("wasm32", "wasmtime")
    with pytest.raises(UsageError, match="sample 1 has 3 bytes, the model takes 100"):
        run.run(RunRequest(build("wasm32"), [INPUTS[0], b"abc"]))
    with pytest.raises(UsageError, match="built without hooks"):
        run.run(RunRequest(build("wasm32"), INPUTS, hooks=True))


def test_runners_that_do_not_fit() -> None:
    with pytest.raises(TargetError, match="unknown runner 'simulator'"):
        open_runner(Target.load("cortex-m4"), "simulator")
    with pytest.raises(TargetError, match="wasmtime runner can not load"):
        open_runner(Target.load("cortex-m4"), "wasmtime")
    with pytest.raises(TargetError, match="unicorn does not have this CPU"):
        open_runner(Target.load("cortex-m55"), "unicorn")


def test_a_cpu_without_the_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcpu, "flags", lambda: frozenset({"popcnt"}))
    assert "lacks" in available(Target.load("x86-64-v4"))
    with pytest.raises(TargetError, match=r"avx512_vpopcntdq|this computer is"):
        open_runner(Target.load("x86-64-v4"))


def test_a_missing_qemu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert available(Target.load("cortex-m55")) == "qemu-system-arm is not installed"
    with pytest.raises(ToolchainError, match="qemu-system-arm is not installed"):
        open_runner(Target.load("cortex-m55"))


def test_unicorn_constants_exist() -> None:
    for name, kind in WAYS:
        spec = Target.load(name).runner.unicorn
        if kind == "unicorn" and spec:
            assert (spec.arch, spec.mode) in emulator._ABIS


@pytest.mark.parametrize(
    ("name", "cc"),
    [("cortex-m0plus", "arm-none-eabi-gcc"), ("cortex-m7", "arm-none-eabi-gcc"), ("host", "gcc"), ("host", "clang")],
)
def test_other_compilers_give_the_same_bytes(name: str, cc: str) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    kind = Target.load(name).runner.kind
    assert runner(name, kind).run(RunRequest(build(name, cc=cc), INPUTS)).outputs == expected()

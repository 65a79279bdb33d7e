"""Run on a board of qemu-system-*: the only way to run Helium, and a second opinion on other Cortex-M.

The board reads samples from files and writes its results to files, by semihosting. A counter that runs with the
emulated clock counts instructions: with -icount each one takes 2**_SHIFT ns.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from bitc.errors import TargetError, ToolchainError
from bitc.runners.base import HookRecord, Runner, RunRequest, RunResult, check_request
from bitc.target import QemuSpec, Target
from bitc.toolchain import elf

_SHIFT = 6
"""64 ns per instruction: more than one tick of every board's counter, and 2**32 ticks are 2.1 to 3.4 G instructions."""
_EMPTY_CALL = 2
"""Instructions of the function that calibrates the cost of a call; see cortex_m.c."""
_STAT = struct.Struct("<iIII")
_HOOK = struct.Struct("<III")
_END_OF_SAMPLE, _CALIBRATION = 0xFFFFFFFF, 0xFFFFFFFE
_FAULT = re.compile(r"bitc fault pc=0x([0-9a-f]{8})")


def unusable(target: Target) -> str:
    """Why QEMU can not run the target's code, or an empty text."""
    spec = target.runner.qemu
    if spec is None:
        return "the target names no QEMU board"
    return "" if shutil.which(spec.system) else f"{spec.system} is not installed"


class QemuRunner(Runner):
    """A board in QEMU; one process per request, however many samples it has."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.runner.qemu is None:
            raise TargetError(f"{target.name} names no QEMU board", hint="use another runner")
        if reason := unusable(target):
            raise ToolchainError(reason, hint="install QEMU (for example: apt install qemu-system-arm)")
        self._board = target.runner.qemu

    def run(self, request: RunRequest) -> RunResult:
        program = elf.read(request.build.path)
        check_request(request, program.symbol("bitc_in").size)
        _check_size(self.target, program)
        with tempfile.TemporaryDirectory(prefix="bitc-qemu-") as scratch:
            folder = Path(scratch)
            (folder / "in.bin").write_bytes(b"".join(request.inputs))
            self._boot(request, program, folder)
            return self._results(request, program.symbol("bitc_out").size, folder)

    def _boot(self, request: RunRequest, program: elf.Elf, folder: Path) -> None:
        board, seconds = self._board, request.seconds * max(1, len(request.inputs))
        command = [board.system, "-M", board.machine, "-nographic", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-icount", f"shift={_SHIFT}"]
        command += ["-kernel", str(request.build.path.resolve())]
        where = f"{request.build.name} on {board.machine}"
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise ToolchainError(f"no end after {seconds:g} s", where=where) from error
        if fault := _FAULT.search(done.stderr + done.stdout):
            pc = int(fault[1], 16)
            raise ToolchainError(
                f"stopped by a fault at pc=0x{pc:08x}",
                where=where,
                hint="this is a bug in generated code or a stack overflow; please report it with the model",
                detail=f"in {program.function_at(pc) or 'no known function'}",
            )
        if done.returncode != 0:
            raise ToolchainError(
                f"QEMU ended with code {done.returncode}", where=where, detail=(done.stderr + done.stdout).strip()
            )

    def _results(self, request: RunRequest, output_bytes: int, folder: Path) -> RunResult:
        raw = (folder / "out.bin").read_bytes()
        stats = list(_STAT.iter_unpack((folder / "stat.bin").read_bytes()))
        if len(stats) != len(request.inputs):
            raise ToolchainError(f"QEMU ran {len(stats)} of {len(request.inputs)} samples", where=request.build.name)
        layers: list[list[HookRecord]] = []
        totals: list[int] = []
        if request.build.hooks:
            layers, totals = _layers((folder / "hooks.bin").read_bytes(), self._board)
        elif stats:
            _, ticks, empty, _ = stats[0]
            totals = [_instructions(ticks - empty, self._board) + _EMPTY_CALL]
        return RunResult(
            [raw[i * output_bytes : (i + 1) * output_bytes] for i in range(len(stats))],
            [stat[0] for stat in stats],
            self.metric,
            instructions=totals[0] if totals else None,
            layers=layers,
            stack_bytes=None if request.build.hooks else max((stat[3] for stat in stats), default=None),
        )


def _instructions(ticks: int, board: QemuSpec) -> int:
    """Instructions in which the counter advanced so far, exact to one."""
    return round(ticks * 1e9 / board.counter_hz / (1 << _SHIFT))


def _layers(raw: bytes, board: QemuSpec) -> tuple[list[list[HookRecord]], list[int]]:
    """The hook records and the instructions of each sample."""
    totals: list[int] = []
    samples: list[list[HookRecord]] = []
    records: list[HookRecord] = []
    at = 0
    while at < len(raw):
        layer, size, ticks = _HOOK.unpack_from(raw, at)
        at += _HOOK.size
        if layer == _END_OF_SAMPLE:
            samples.append(records)
            totals.append(_instructions(ticks, board))
            records = []
        elif layer != _CALIBRATION:
            records.append(HookRecord(layer, raw[at : at + size], _instructions(ticks, board)))
        at += size
    return samples, totals


def _check_size(target: Target, program: elf.Elf) -> None:
    machine = target.machine
    for what, base, limit, end in (
        ("code and weights", machine.code_base, machine.code_bytes, program.symbol("bitc_code_end").value),
        ("RAM", machine.ram_base, machine.ram_bytes, program.symbol("bitc_ram_end").value),
    ):
        if end - base > limit:
            raise ToolchainError(
                f"{what} need {end - base} bytes, the emulated board has {limit}",
                where=target.name,
                hint="the board is QEMU's; another runner or target has no such limit",
            )

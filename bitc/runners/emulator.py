"""Run in the unicorn engine: Cortex-M, Armv7-A, AArch64 and RISC-V, in process, with exact instruction counts.

There is no board and no reset code: the model's function is called by setting registers, as its ABI says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unicorn import arm64_const, arm_const, riscv_const

from bitc.errors import TargetError, ToolchainError
from bitc.runners.base import HookRecord, Runner, RunRequest, RunResult, check_request
from bitc.runners.counting import COMPRESSED, FIXED, THUMB, Counter, unicorn
from bitc.target import Target
from bitc.toolchain import Runnable, elf

_PAGE = 0x1000
_PAINT = b"\xa5"


@dataclass(frozen=True)
class _Abi:
    """How a function is called: registers of arguments (more go to the stack), result, return address."""

    constants: Any
    cpu_prefix: str
    arguments: tuple[str, ...]
    link: str
    word_bytes: int
    counting: int
    setup: Mapping[str, int]
    """System registers to write first, which switch the vector unit on."""

    def register(self, prefix: str, name: str) -> int:
        return int(getattr(self.constants, f"UC_{prefix}_REG_{name}"))


_ARM_VECTORS = {"C1_C0_2": 0xF << 20, "FPEXC": 1 << 30}
_ABIS = {
    ("ARM", "THUMB"): _Abi(arm_const, "ARM", ("R0", "R1", "R2", "R3"), "LR", 4, THUMB, _ARM_VECTORS),
    ("ARM", "ARM"): _Abi(arm_const, "ARM", ("R0", "R1", "R2", "R3"), "LR", 4, FIXED, _ARM_VECTORS),
    ("ARM64", "ARM"): _Abi(
        arm64_const, "ARM64", ("X0", "X1", "X2", "X3", "X4"), "X30", 8, FIXED, {"CPACR_EL1": 3 << 20}
    ),
    ("RISCV", "RISCV32"): _Abi(riscv_const, "RISCV32", ("A0", "A1", "A2", "A3", "A4"), "RA", 4, COMPRESSED, {}),
}


class _Machine:
    """One emulated machine with a model in it."""

    def __init__(self, target: Target, build: Runnable) -> None:
        spec = target.runner.unicorn
        if spec is None or (spec.arch, spec.mode) not in _ABIS:
            raise TargetError(f"{target.name} has no usable [runner.unicorn]", hint="set its arch, mode and cpu")
        self.arch, self.abi = spec.arch, _ABIS[spec.arch, spec.mode]
        self.program = elf.read(build.path)
        self.build = build
        self.engine = unicorn.Uc(_constant(unicorn, f"UC_ARCH_{spec.arch}"), _constant(unicorn, f"UC_MODE_{spec.mode}"))
        self.engine.ctl_set_cpu_model(_constant(self.abi.constants, f"UC_CPU_{self.abi.cpu_prefix}_{spec.cpu}"))
        self.stack_low = target.machine.ram_base
        self.stack_bytes = target.machine.stack_bytes
        code_base, code = self._load(target)
        for name, value in self.abi.setup.items():
            self.write(name, value)
        self.counter = Counter(self.engine, code_base, code, self.abi.counting)
        self.records: list[HookRecord] = []
        mark = self.program.symbol("bitc_mark").value
        self.engine.hook_add(unicorn.UC_HOOK_CODE, self._on_mark, begin=mark & ~1, end=mark & ~1)
        self.input, self.output = self.program.symbol("bitc_in"), self.program.symbol("bitc_out")
        self.engine.mem_write(self.stack_low, _PAINT * self.stack_bytes)

    def write(self, name: str, value: int) -> None:
        self.engine.reg_write(self.abi.register(self.arch, name), value)

    def read(self, name: str) -> int:
        return int(self.engine.reg_read(self.abi.register(self.arch, name)))

    def _load(self, target: Target) -> tuple[int, bytes]:
        """Map and fill code and RAM; gives the code back for the counter. RAM is as large as the program needs."""
        ram = target.machine.ram_base
        code = [s for s in self.program.segments if not ram <= s.address]
        base = min(s.address for s in code)
        image = bytearray(max(s.address + s.size for s in code) - base)
        for segment in code:
            at = segment.address - base
            image[at : at + len(segment.data)] = segment.data
        low, high = base & -_PAGE, (base + len(image) + _PAGE) & -_PAGE
        self.engine.mem_map(low, high - low, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.engine.mem_write(base, bytes(image))
        end = (self.program.symbol("bitc_ram_end").value + _PAGE) & -_PAGE
        self.engine.mem_map(ram, end - ram, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        for segment in self.program.segments:
            if segment.address >= ram and segment.data:
                self.engine.mem_write(segment.address, segment.data)
        return base, bytes(image)

    def _on_mark(self, engine: Any, address: int, size: int, _data: Any) -> None:
        """A hook call arrived. Its block, one return instruction, was counted already and is taken out."""
        self.counter.instructions -= 1
        _, layer, data, length = (self.read(name) for name in self.abi.arguments[:4])
        content = bytes(self.engine.mem_read(data, length)) if length else b""
        self.records.append(HookRecord(_signed(layer), content, self.counter.instructions))

    def call(self, seconds: float, hooks: bool) -> int:
        """Call the model once; what it returned. Raises ToolchainError on a fault or if it does not end."""
        symbol = self.program.symbol
        function = symbol(f"{self.build.name}_run{'_hooked' if hooks else ''}").value
        arguments = [symbol("bitc_arena").value, self.input.value, self.output.value]
        arguments += [symbol("bitc_mark").value, 0] if hooks else []
        stop = symbol("bitc_stop").value
        top = self.stack_low + self.stack_bytes
        registers = self.abi.arguments
        spilled = arguments[len(registers) :]
        top -= -(-len(spilled) * self.abi.word_bytes // 16) * 16
        for number, value in enumerate(spilled):
            at = top + number * self.abi.word_bytes
            self.engine.mem_write(at, value.to_bytes(self.abi.word_bytes, "little"))
        for name, value in zip(registers, arguments, strict=False):
            self.write(name, value)
        self.write("SP", top)
        self.write(self.abi.link, stop)
        self.counter.instructions = 0
        self.records = []
        try:
            self.engine.emu_start(function, stop & ~1, timeout=int(seconds * 1e6))
        except unicorn.UcError as error:
            raise self._fault(f"stopped by a fault ({error})") from error
        if self.read("PC") != stop & ~1:
            raise self._fault(f"no end after {seconds:g} s")
        return _signed(self.read(registers[0]))

    def _fault(self, what: str) -> ToolchainError:
        pc = self.read("PC")
        return ToolchainError(
            f"{what} at pc=0x{pc:08x}",
            where=f"{self.build.name} on {self.build.target.name}",
            hint="this is a bug in generated code or a stack overflow; please report it with the model",
            detail=f"in {self.program.function_at(pc) or 'no known function'}",
        )

    def stack_used(self) -> int:
        """Bytes between the top of the stack and the lowest byte that was ever overwritten."""
        stack = bytes(self.engine.mem_read(self.stack_low, self.stack_bytes))
        return len(stack.lstrip(_PAINT))


def _constant(module: Any, name: str) -> int:
    value = getattr(module, name, None)
    if value is None:
        raise TargetError(f"unicorn has no {name}", hint="check [runner.unicorn] in the target file")
    return int(value)


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


class EmulatorRunner(Runner):
    """The unicorn engine."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._machine: _Machine | None = None
        self._build: Runnable | None = None

    def run(self, request: RunRequest) -> RunResult:
        if self._machine is None or self._build is not request.build:
            self._machine, self._build = _Machine(self.target, request.build), request.build
        machine, self._machine = self._machine, None  # a faulted machine is not used again
        check_request(request, machine.input.size)
        outputs: list[bytes] = []
        codes: list[int] = []
        layers: list[list[HookRecord]] = []
        first = None
        for data in request.inputs:
            machine.engine.mem_write(machine.input.value, data)
            codes.append(machine.call(request.seconds, request.hooks))
            outputs.append(bytes(machine.engine.mem_read(machine.output.value, machine.output.size)))
            layers.append(machine.records)
            first = machine.counter.instructions if first is None else first
        self._machine = machine
        return RunResult(
            outputs,
            codes,
            self.metric,
            instructions=first,
            layers=layers if request.hooks else [],
            stack_bytes=machine.stack_used(),
        )

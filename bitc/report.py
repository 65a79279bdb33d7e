"""What a compilation came to: sizes, MACs, layers; and whether the target can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitc.errors import DoesNotFit
from bitc.ir.plan import MemoryPlan
from bitc.ir.program import Program
from bitc.target import Target
from bitc.toolchain import Objects

KINDS = ("binary", "ternary", "lowbit", "int8", "float")
MAPPED = 60
"""Blocks of an arena that are listed whole, where the model does not fit."""


def compile_report(
    name: str,
    program: Program,
    plan: MemoryPlan,
    target: Target,
    objects: Objects,
    files: Sequence[str],
    warnings: Sequence[str],
    states: Sequence[tuple[str, str]] = (),
    schedule: str = "",
) -> dict[str, Any]:
    """The report of `bitc compile`; sizes in bytes. `states` pairs the inputs that `program.states` were with outputs.
    `schedule` is the schedule as text. `stack_bytes` is None where frames are unknown (WebAssembly)."""
    macs = dict.fromkeys(KINDS, 0)
    for layer in program.layers:
        if layer.macs:
            macs[layer.kind] += layer.macs
    return {
        "model": name,
        "target": target.name,
        "files": sorted(files),
        "arena_bytes": plan.arena_bytes,
        "arena_lower_bound": plan.lower_bound,
        "liveness_bytes": plan.liveness,
        "scratch_bytes": plan.scratch_bytes,
        "schedule": schedule,
        "mac_factor": round(1 + sum(layer.recomputed for layer in program.layers) / max(sum(macs.values()), 1), 4),
        "stack_bytes": objects.stack_bytes(f"{name}_run"),
        "state_bytes": plan.state_bytes,
        "states": [
            {"input": i, "output": o, "bytes": b.type.nbytes} for (i, o), b in zip(states, program.states, strict=True)
        ],
        "input_bytes": program.given_bytes,
        "input_in_arena_bytes": program.input.type.nbytes if program.input else 0,
        "output_bytes": sum(b.type.nbytes for b in program.outputs),
        "weights_bytes": program.weights_bytes,
        "code_bytes": objects.code_bytes,
        "macs": macs,
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "kernel": layer.kernel,
                "kind": layer.kind,
                "macs": layer.macs,
                "weights_bytes": layer.weights_bytes,
                "type": layer.text,
                "predicted": layer.predicted,
                "rejected": [{"kernel": kernel, "why": why} for kernel, why in layer.rejected],
            }
            for layer in program.layers
        ],
        "warnings": list(warnings),
    }


def check_fit(report: dict[str, Any], program: Program, plan: MemoryPlan, target: Target) -> None:
    """Raises DoesNotFit, with the memory map and what would help, if RAM or flash of the target is too small."""
    ram = {k: report[f"{k}_bytes"] or 0 for k in ("arena", "input", "output", "stack")}
    flash = {k: report[f"{k}_bytes"] for k in ("weights", "code")}
    need_ram, need_flash = sum(ram.values()), sum(flash.values())
    if target.memory.ram is not None and need_ram > target.memory.ram:
        raise DoesNotFit(
            f"the model needs {need_ram:,} bytes of RAM, the target has {target.memory.ram:,}{_peak(program, plan)}",
            where=target.name,
            hint="this is the schedule that needs least, within --max-overhead if that is given (`bitc plan` shows "
            "others); --input stream or --overwrite-input may need less; lower the resolution or "
            "the channels of the layers that are alive at the peak, pool earlier, or choose a target with more RAM "
            "(--ram says how much yours has)",
            detail=_lines(ram) + "\n" + plan.memory_map(_fullest(program, plan) if len(plan.slots) > MAPPED else None),
        )
    if target.memory.flash is not None and need_flash > target.memory.flash:
        layer = max(report["layers"], key=lambda r: r["weights_bytes"])
        raise DoesNotFit(
            f"the model needs {need_flash:,} bytes of flash, the target has {target.memory.flash:,}; most of it is "
            f"{layer['name']} with {layer['weights_bytes']:,} bytes of weights ({layer['kind'] or layer['op']})",
            where=target.name,
            hint=("make it smaller" if layer["kind"] == "binary" else "binarize it or make it smaller")
            + ", compile with --optimize size, or choose a target with more flash (--flash says how much yours has)",
            detail=_lines(flash),
        )


def _peak(program: Program, plan: MemoryPlan) -> str:
    """What takes most of the arena, and when it is fullest."""
    if not plan.slots:
        return ""
    largest = max((block for block, _ in plan.slots), key=lambda b: b.size)
    fullest = _fullest(program, plan)
    layer = program.layers[program.calls[fullest].layer].name
    return (
        f"; the arena is fullest, with {plan.alive_at(fullest):,} bytes, in {layer}; the largest buffer is "
        f"{largest.name} with {largest.size:,} bytes"
    )


def _fullest(program: Program, plan: MemoryPlan) -> int:
    """The call during which most of the arena is in use."""
    return max(range(len(program.calls)), key=plan.alive_at)


def _lines(sizes: dict[str, int]) -> str:
    return "\n".join(f"{name:<8}{size:>12,} bytes" for name, size in sizes.items())

"""Memory over time as a picture, and the page of `bitc plan`: text that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bitc.ir.plan import MemoryPlan
from bitc.planning import Planned

WIDTH, HEIGHT, MARGIN = 1000, 420, 60
_TICKS = 8


def memory_svg(plan: MemoryPlan, title: str) -> str:
    """The blocks of the arena: calls from left to right, addresses from bottom to top. Pointing at one names it."""
    calls = 1 + max((block.stop for block, _ in plan.slots), default=0)
    size = max(plan.arena_bytes, 1)

    def x(call: float) -> float:
        return MARGIN + call * (WIDTH - 2 * MARGIN) / calls

    def y(address: float) -> float:
        return HEIGHT - MARGIN - address * (HEIGHT - 2 * MARGIN) / size

    shapes = [_text(WIDTH / 2, MARGIN / 2, title, "middle")]
    for i in range(_TICKS + 1):
        at = size * i // _TICKS
        shapes.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#ddd"/>')
        shapes.append(_text(MARGIN - 5, y(at) + 4, f"{at:,}", "end"))
    for i, (block, offset) in enumerate(sorted(plan.slots, key=lambda s: (s[0].start, s[1]))):
        left, top = x(block.start), y(offset + block.size)
        width, height = x(block.stop + 1) - left, y(offset) - top
        name = escape(f"{block.name}: {block.size:,} bytes at {offset:,}, calls {block.start} to {block.stop}")
        shapes.append(
            f'<rect x="{left:.2f}" y="{top:.2f}" width="{max(width, 0.5):.2f}" height="{height:.2f}" '
            f'fill="hsl({i * 47 % 360},60%,70%)" stroke="#333" stroke-width="0.3"><title>{name}</title></rect>'
        )
    shapes.append(_text(WIDTH / 2, HEIGHT - MARGIN / 3, f"{calls} calls in the order of the program", "middle"))
    return _svg(shapes)


def front_svg(front: Sequence[Planned], chosen: Planned) -> str:
    """Arena bytes over the factor of multiply-accumulates."""
    most = max(p.plan.arena_bytes for p in front) or 1
    factors = [p.mac_factor for p in front]
    span = max(max(factors) - 1, 0.01)
    shapes = [_text(WIDTH / 2, MARGIN / 2, "arena bytes by factor of multiply-accumulates", "middle")]
    places = []
    for p in front:
        x = MARGIN + (p.mac_factor - 1) / span * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - p.plan.arena_bytes / most * (HEIGHT - 2 * MARGIN)
        places.append(f"{x:.1f},{y:.1f}")
        fill = "#c00" if p.plan.arena_bytes == chosen.plan.arena_bytes else "#06c"
        name = escape(f"{p.plan.arena_bytes:,} bytes at {p.mac_factor:.3f}: {p.schedule}")
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}"><title>{name}</title></circle>')
    shapes.insert(1, f'<polyline points="{" ".join(places)}" fill="none" stroke="#06c"/>')
    shapes += [_text(MARGIN, HEIGHT - MARGIN / 3, "1.00", "start"), _text(MARGIN - 5, MARGIN, f"{most:,}", "end")]
    shapes.append(_text(WIDTH - MARGIN, HEIGHT - MARGIN / 3, f"{1 + span:.2f}", "end"))
    return _svg(shapes)


def page(model: str, target: str, front: Sequence[Planned], chosen: Planned) -> str:
    """An HTML page with the front, a table of its points and the memory over time of the chosen plan."""
    head = "".join(f"<th>{name}</th>" for name in ("arena bytes", "work", "instructions", "schedule"))
    rows = "".join(
        f"<tr{' class=chosen' if p.plan.arena_bytes == chosen.plan.arena_bytes else ''}><td>{p.plan.arena_bytes:,}</td>"
        f"<td>{p.mac_factor:.3f}</td><td>{'' if p.predicted is None else f'{p.predicted:,}'}</td>"
        f"<td class=text>{escape(str(p.schedule))}</td></tr>"
        for p in front
    )
    title = escape(f"{model} on {target}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>body{{font-family:sans-serif}}"
        "td,th{padding:2px 8px;text-align:right;vertical-align:top}.text{text-align:left;font-size:80%}"
        f".chosen{{background:#fdd}}</style><h1>{title}</h1>{front_svg(front, chosen)}"
        f"<table><tr>{head}</tr>{rows}</table>"
        f"<h2>Memory over time</h2>{memory_svg(chosen.plan, str(chosen.schedule)[:120])}</html>\n"
    )


def _svg(shapes: Sequence[str]) -> str:
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    body = "\n".join(shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n{body}\n</svg>\n'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

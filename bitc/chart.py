"""Memory over time as a picture, and the page of `bitc plan`: text that stands alone, or PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bitc.errors import UsageError
from bitc.ir.plan import MemoryPlan
from bitc.planning import Planned

WIDTH, HEIGHT, MARGIN = 1000, 420, 60
_TICKS = 8
SCALE = 2
"""Pixels of a PNG per unit."""


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    anchor: str
    """start, middle or end."""

    def svg(self) -> str:
        return f'<text x="{self.x:.1f}" y="{self.y:.1f}" text-anchor="{self.anchor}">{escape(self.text)}</text>'


@dataclass(frozen=True)
class Lines:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    color: str

    def svg(self) -> str:
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        return f'<polyline points="{at}" fill="none" stroke="{self.color}"/>'


@dataclass(frozen=True)
class Rectangle:
    """Pointing at it shows its name."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    name: str

    def svg(self) -> str:
        return (
            f'<rect x="{self.x:.2f}" y="{self.y:.2f}" width="{self.width:.2f}" height="{self.height:.2f}" '
            f'fill="{self.fill}" stroke="#333" stroke-width="0.3"><title>{escape(self.name)}</title></rect>'
        )


@dataclass(frozen=True)
class Dot:
    """Pointing at it shows its name."""

    x: float
    y: float
    fill: str
    name: str

    def svg(self) -> str:
        return (
            f'<circle cx="{self.x:.1f}" cy="{self.y:.1f}" r="5" fill="{self.fill}">'
            f"<title>{escape(self.name)}</title></circle>"
        )


Shape = Text | Lines | Rectangle | Dot


def memory(plan: MemoryPlan, title: str) -> list[Shape]:
    """The blocks of the arena: calls from left to right, addresses from bottom to top."""
    calls = 1 + max((block.stop for block, _ in plan.slots), default=0)
    size = max(plan.arena_bytes, 1)

    def x(call: float) -> float:
        return MARGIN + call * (WIDTH - 2 * MARGIN) / calls

    def y(address: float) -> float:
        return HEIGHT - MARGIN - address * (HEIGHT - 2 * MARGIN) / size

    shapes: list[Shape] = [Text(WIDTH / 2, MARGIN / 2, title, "middle")]
    for i in range(_TICKS + 1):
        at = size * i // _TICKS
        shapes.append(Lines(((MARGIN, y(at)), (WIDTH - MARGIN, y(at))), "#ddd"))
        shapes.append(Text(MARGIN - 5, y(at) + 4, f"{at:,}", "end"))
    for i, (block, offset) in enumerate(sorted(plan.slots, key=lambda s: (s[0].start, s[1]))):
        left, top = x(block.start), y(offset + block.size)
        width, height = x(block.stop + 1) - left, y(offset) - top
        name = f"{block.name}: {block.size:,} bytes at {offset:,}, calls {block.start} to {block.stop}"
        shapes.append(Rectangle(left, top, max(width, 0.5), height, f"hsl({i * 47 % 360},60%,70%)", name))
    shapes.append(Text(WIDTH / 2, HEIGHT - MARGIN / 3, f"{calls} calls in the order of the program", "middle"))
    return shapes


def points(front: Sequence[Planned], chosen: Planned) -> list[Shape]:
    """Arena bytes over the factor of multiply-accumulates."""
    most = max(p.plan.arena_bytes for p in front) or 1
    factors = [p.mac_factor for p in front]
    span = max(max(factors) - 1, 0.01)
    shapes: list[Shape] = [Text(WIDTH / 2, MARGIN / 2, "arena bytes by factor of multiply-accumulates", "middle")]
    places = []
    for p in front:
        x = MARGIN + (p.mac_factor - 1) / span * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - p.plan.arena_bytes / most * (HEIGHT - 2 * MARGIN)
        places.append((x, y))
        fill = "#c00" if p.plan.arena_bytes == chosen.plan.arena_bytes else "#06c"
        shapes.append(Dot(x, y, fill, f"{p.plan.arena_bytes:,} bytes at {p.mac_factor:.3f}: {p.schedule}"))
    shapes.insert(1, Lines(tuple(places), "#06c"))
    shapes += [Text(MARGIN, HEIGHT - MARGIN / 3, "1.00", "start"), Text(MARGIN - 5, MARGIN, f"{most:,}", "end")]
    shapes.append(Text(WIDTH - MARGIN, HEIGHT - MARGIN / 3, f"{1 + span:.2f}", "end"))
    return shapes


def page(model: str, target: str, front: Sequence[Planned], chosen: Planned) -> str:
    """An HTML page with the front, a table of its points and the memory over time of the chosen plan."""
    head = "".join(f"<th>{name}</th>" for name in ("arena bytes", "products", "instructions", "schedule"))
    rows = "".join(
        f"<tr{' class=chosen' if p.plan.arena_bytes == chosen.plan.arena_bytes else ''}><td>{p.plan.arena_bytes:,}</td>"
        f"<td>{p.mac_factor:.3f}</td><td>{p.work:,}</td>"
        f"<td class=text>{escape(str(p.schedule))}</td></tr>"
        for p in front
    )
    title = escape(f"{model} on {target}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>body{{font-family:sans-serif}}"
        "td,th{padding:2px 8px;text-align:right;vertical-align:top}.text{text-align:left;font-size:80%}"
        f".chosen{{background:#fdd}}</style><h1>{title}</h1>{svg(points(front, chosen))}"
        f"<table><tr>{head}</tr>{rows}</table>"
        f"<h2>Memory over time</h2>{svg(memory(chosen.plan, str(chosen.schedule)[:120]))}</html>\n"
    )


def svg(shapes: Sequence[Shape]) -> str:
    """The picture as SVG text."""
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    body = "\n".join(s.svg() for s in shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n{body}\n</svg>\n'


def png(shapes: Sequence[Shape]) -> bytes:
    """The picture as PNG, twice as large; names are left out. Raises UsageError without Pillow."""
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise UsageError("PNG needs Pillow, which is not installed", hint="pip install 'bitc[png]'") from None
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    draw = ImageDraw.Draw(image)
    font_size = 11 * SCALE
    for s in shapes:
        if isinstance(s, Text):
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[s.anchor]
            draw.text((s.x * SCALE, s.y * SCALE), s.text, fill="black", anchor=anchor, font_size=font_size)
        elif isinstance(s, Lines):
            draw.line([(x * SCALE, y * SCALE) for x, y in s.points], fill=s.color, width=SCALE)
        elif isinstance(s, Rectangle):
            ends = (s.x, s.y, s.x + s.width, s.y + s.height)
            draw.rectangle([v * SCALE for v in ends], fill=s.fill, outline="#333")
        else:
            draw.circle((s.x * SCALE, s.y * SCALE), 5 * SCALE, fill=s.fill)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()

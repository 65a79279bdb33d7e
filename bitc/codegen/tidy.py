"""Layout of generated C: templates need not care about indentation and blank lines."""

from __future__ import annotations


def tidy(text: str) -> str:
    """Indent by braces, four spaces each; drop blank lines at the edges of blocks, keep single ones elsewhere."""
    lines: list[str] = []
    depth = 0
    parens = 0
    in_comment = False
    for raw in text.splitlines():
        line = raw.strip()
        if in_comment:
            lines.append(f"{'    ' * depth} {line}".rstrip())
            in_comment = "*/" not in line
            continue
        if not line:
            if lines and lines[-1] and not lines[-1].endswith("{"):
                lines.append("")
            continue
        if line.startswith("#"):
            lines.append(line)
            continue
        code = _code(line)
        if code.startswith("}"):
            while lines and not lines[-1]:
                lines.pop()
            depth -= 1
        lines.append("    " * (depth + parens) + line)
        parens = max(parens + code.count("(") - code.count(")"), 0)
        depth += code.count("{") - code.count("}") + code.startswith("}")
        in_comment = line.startswith("/*") and "*/" not in line
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""


def _code(line: str) -> str:
    """A line without its comment (strings with braces do not occur in templates)."""
    return line.split("/*")[0].strip()

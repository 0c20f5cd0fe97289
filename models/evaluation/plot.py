"""The reliability plot, as SVG: small, readable on light and dark pages, and the same bytes for the same report."""

from __future__ import annotations

from html import escape

SIDE, LEFT, TOP, GAP, BOTTOM = 168, 44, 34, 26, 46
INK, FAINT, LINE = "#333", "#ccc", "#1f6fb2"


def reliability_svg(heads: dict[str, dict]) -> str:
    """One panel a head: share of right labels over confidence, a dot a bin, its area by how many posts are in it. On the diagonal
    confidence is what it says. `heads` maps a name to the `calibration` of the report."""
    width = LEFT + len(heads) * (SIDE + GAP)
    height = TOP + SIDE + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}" role="img" aria-label="Reliability of each head">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (name, calibration) in enumerate(heads.items()):
        parts += panel(LEFT + number * (SIDE + GAP), name, calibration, first=number == 0)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def panel(x0: float, name: str, calibration: dict, first: bool) -> list[str]:
    def x(share: float) -> str:
        return f"{x0 + share * SIDE:.1f}"

    def y(share: float) -> str:
        return f"{TOP + (1 - share) * SIDE:.1f}"

    bins = calibration["bins"]
    most = max((b["posts"] for b in bins), default=1)
    parts = [
        f'<text x="{x(0)}" y="16" font-weight="bold">{escape(name)}</text>',
        f'<text x="{x(0)}" y="29" font-size="10">ECE {calibration["ece"]["cross_fitted"]:.3f}</text>',
        f'<rect x="{x(0)}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{FAINT}"/>',
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="{FAINT}" stroke-dasharray="4 3"/>',
    ]
    for tick in (0, 0.5, 1):
        parts.append(f'<text x="{x(tick)}" y="{TOP + SIDE + 14}" text-anchor="middle">{tick:g}</text>')
        if first:
            parts.append(f'<text x="{float(x(0)) - 6:.1f}" y="{float(y(tick)) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    path = " ".join(f"{x(b['confidence'])},{y(b['accuracy'])}" for b in bins)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-opacity="0.5"/>')
    for b in bins:
        radius = 1.5 + 6 * (b["posts"] / most) ** 0.5
        title = f"{b['posts']} posts, confidence {b['confidence']:.2f}, right {b['accuracy']:.2f}"
        parts.append(f'<circle cx="{x(b["confidence"])}" cy="{y(b["accuracy"])}" r="{radius:.1f}" fill="{LINE}" fill-opacity="0.75"><title>{title}</title></circle>')
    parts.append(f'<text x="{x(0.5)}" y="{TOP + SIDE + 32}" text-anchor="middle">confidence</text>')
    if first:
        middle = TOP + SIDE / 2
        parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">share that is right</text>')
    return parts

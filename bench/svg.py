# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Charts as SVG, without a library."""

from __future__ import annotations

import math
import typing as t
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 460, 70, 300, 40, 50
COLOURS = ('#0b6e4f', '#c1121f', '#3a5ba0', '#e09f3e', '#7b2d8b', '#4d4d4d', '#08a4bd', '#9c6644', '#6a994e', '#d81159')


def line_chart(path: Path, title: str, x_label: str, y_label: str, series: t.Mapping[str, t.Sequence[tuple[float, float]]],
               log_x: bool = False) -> None:
    """Writes lines through points (x, y), each with its name; y from 0 up."""
    points = [point for line in series.values() for point in line]
    scale: t.Callable[[float], float] = (lambda x: math.log10(max(x, 1e-9))) if log_x else float
    low, high = min(scale(x) for x, _y in points), max(scale(x) for x, _y in points)
    top = max(max(y for _x, y in points), 1e-9)

    def at(x: float, y: float) -> tuple[float, float]:
        return (LEFT + (scale(x) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM))

    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">' % (WIDTH, HEIGHT),
           '<rect width="100%" height="100%" fill="white"/>', '<text x="%d" y="20" font-size="15">%s</text>' % (LEFT, escape(title)),
           '<text x="%d" y="%d">%s</text>' % (LEFT, HEIGHT - 12, escape(x_label)),
           '<text x="14" y="%d" transform="rotate(-90 14 %d)">%s</text>' % (HEIGHT - BOTTOM, HEIGHT - BOTTOM, escape(y_label))]
    for i in range(6):
        value = top * i / 5
        _x, y = at(points[0][0], value)
        out.append('<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.3g</text>' % (
            LEFT, y, WIDTH - RIGHT, LEFT - 6, y + 4, value))
    for i in range(6):
        value = low + (high - low) * i / 5
        value = 10 ** value if log_x else value
        x, _y = at(value, 0)
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%.3g</text>' % (x, HEIGHT - BOTTOM + 16, value))
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path_data = ' '.join('%s%.1f %.1f' % ('L' if j else 'M', *at(*point)) for j, point in enumerate(line))
        style = 'stroke="%s" stroke-width="%g"%s' % (
            colour, 3 if name.startswith('F2') else 1.5, ' stroke-dasharray="6 3"' if i >= len(COLOURS) else '')
        out.append('<path d="%s" fill="none" %s/>' % (path_data, style))
        out.append('<path d="M%d %dh24" %s/><text x="%d" y="%d">%s</text>' % (
            WIDTH - RIGHT + 8, TOP + 18 * i - 4, style, WIDTH - RIGHT + 38, TOP + 18 * i, escape(name)))
    path.write_text('\n'.join([*out, '</svg>']) + '\n', encoding='utf-8')

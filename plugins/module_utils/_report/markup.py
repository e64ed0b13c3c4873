# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""HTML and SVG out of Python values: what is text is escaped, always. Pure."""

from __future__ import annotations

import html
import typing as t


class Safe(str):
    """Markup that was made here."""


def el(element: str, /, *children: t.Any, **attributes: t.Any) -> Safe:
    """Returns an element. Children that are no ``Safe`` are text; None is left out; a list holds children.

    ``class_`` stands for class, and ``_`` within a name for ``-``; an attribute that is None is left out.
    """
    given = ''.join(' %s="%s"' % (key.rstrip('_').replace('_', '-'), html.escape(str(value), quote=True))
                    for key, value in attributes.items() if value is not None)
    if element in ('meta', 'br', 'hr'):
        return Safe('<%s%s>' % (element, given))
    return Safe('<%s%s>%s</%s>' % (element, given, join(children), element))


def join(children: t.Iterable[t.Any]) -> Safe:
    return Safe(''.join(_one(child) for child in children))


def _one(child: t.Any) -> str:
    if child is None:
        return ''
    if isinstance(child, Safe):
        return child
    if isinstance(child, (list, tuple)):
        return join(child)
    return html.escape(str(child), quote=True)


def table(head: t.Sequence[t.Any], rows: t.Iterable[t.Sequence[t.Any]], right: t.Collection[int] = (), class_: str | None = None) -> Safe:
    """Returns a table; columns *right* hold figures. A row's first cell is its heading."""
    def style(column: int) -> str | None:
        return 'n' if column in right else None

    return el('div', el(
        'table', el('thead', el('tr', [el('th', text, scope='col', class_=style(column)) for column, text in enumerate(head)])),
        el('tbody', [el('tr', [el('th' if not column else 'td', cell, class_=style(column), scope=None if column else 'row')
                               for column, cell in enumerate(row)]) for row in rows]), class_=class_), class_='wide')

# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`locked.py PYTHON NAME`: the part of requirements/run.txt, with its hashes, that package NAME needs under that Python (3.11)."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parents[2] / 'requirements' / 'run.txt'


def needed(name: str, python: str, found: set[str]) -> set[str]:
    """Adds to *found* the packages that *name* needs, itself included, as those of this environment declare them."""
    found.add(name.lower().replace('_', '-'))
    for line in requires(name) or ():
        other = Requirement(line)
        wanted = other.marker is None or other.marker.evaluate({'python_version': python, 'extra': ''})
        if wanted and other.name.lower().replace('_', '-') not in found:
            needed(other.name, python, found)
    return found


def main() -> None:
    python, name = sys.argv[1:]
    wanted = needed(name, python, set())
    for block in re.findall(r'^\S.*(?:\n[ \t]+\S.*)*', LOCK.read_text(), re.M):
        if re.split(r'[=\[ ;]', block, maxsplit=1)[0] in wanted:
            print(block)


if __name__ == '__main__':
    main()

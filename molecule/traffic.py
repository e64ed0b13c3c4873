# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic as a client sees it, for the scenarios' verify.

    traffic.py start RATE       start a load of the lab that LAB_DIR and LAB_PORT name, in the background; returns when it is on
    traffic.py now              ask each data plane of that lab 50 times; prints {"VERSION": answers}
    traffic.py seen DIRECTORY...  read the record of each load; prints {"requests": n, "failed": {"VERSION or -": n}}
"""

from __future__ import annotations

import collections
import http.client
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'lab'))

import load
import stack
from layout import Layout
from processes import Process


def start(words: list[str]) -> dict:
    lab = Layout.from_environment()
    command = [sys.executable, load.MODULE.parent / 'lab.py', 'load', '--rate', words[0], '--duration', '600']
    generator = Process(lab.run, lab.logs, 'load')
    pid = generator.start(command)
    # A stage without a request would be taken back, and rightly so.
    stack.await_load(lab, generator)
    return {'pid': pid}


def now(_words: list[str]) -> dict:
    answers: collections.Counter[str] = collections.Counter()
    for domain, address in stack.edges(Layout.from_environment()).items():
        for _number in range(50):
            client = http.client.HTTPConnection(address, timeout=10)
            client.request('GET', '/api/items', headers={'Host': load.host(1, domain)})
            answer = client.getresponse()
            answers[answer.getheader('x-version', '-') if answer.status == 200 else 'status %d' % answer.status] += 1
            client.close()
    return dict(answers)


def seen(directories: list[str]) -> dict:
    hits = [hit for directory in directories for hit in load.read_hits(load.vegeta_path(), Path(directory) / 'load.bin')]
    return {'requests': len(hits), 'failed': dict(collections.Counter(hit.version or '-' for hit in hits if hit.failed))}


if __name__ == '__main__':
    print(json.dumps({'start': start, 'now': now, 'seen': seen}[sys.argv[1]](sys.argv[2:])))

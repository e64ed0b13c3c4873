# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is paged in the lab: a receiver of Alertmanager's webhooks that keeps each one as a line of a file.

    pager.py --port 18005 --file .lab/pages.jsonl

A line is what Alertmanager sent, with the time of its arrival, ``ts``, and the path that it was sent to, ``to``.
"""

from __future__ import annotations

import argparse
import http.server
import json
import time
from pathlib import Path


def handler(file: Path) -> type[http.server.BaseHTTPRequestHandler]:
    class Pager(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            told = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
            with open(file, 'a') as lines:
                lines.write(json.dumps({'ts': time.time(), 'to': self.path.strip('/'), **told}) + '\n')
            self.send_response(200)
            self.send_header('Content-Length', '0')
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    return Pager


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--file', type=Path, required=True)
    options = parser.parse_args()
    # One at a time: lines stay whole, and in the order of their arrival.
    http.server.HTTPServer(('127.0.0.1', options.port), handler(options.file)).serve_forever()


if __name__ == '__main__':
    main()

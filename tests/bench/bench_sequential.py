# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one poll over 20 sequential conditions costs a gate: 10 on errors, 10 on latencies, four servers of stable, 1000 requests a poll."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / '.collections'))

from ansible_collections.progressive.delivery.plugins.module_utils._analysis.condition import build_conditions  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._analysis.spec import Context, Sample  # noqa: E402
from ansible_collections.progressive.delivery.plugins.module_utils._metrics.base import COUNTS, LATENCIES, Block, Reading  # noqa: E402

POLLS = 300
LIMIT_MS = 5.0


def main() -> int:
    chance = random.Random(1)
    common = {'type': 'sequential', 'pass_margin': '1%'}
    raw = [{**common, 'name': 'errors %d' % k, 'metric': 'errors', 'margin': 0.0001 * k} for k in range(10)]
    raw += [{**common, 'name': 'slow %d' % k, 'metric': 'latency', 'above_ms': 100 * k + 100} for k in range(10)]
    sources = {'router': {'requests': COUNTS, 'latency': LATENCIES}}
    conditions = build_conditions(raw, Context('canary', 'blue', ('blue', 'canary'), sources))
    readings = []
    for _poll in range(POLLS):
        blocks = []
        for arm, n in (('blue', 950), ('canary', 50)):
            each = tuple(('%s%d' % (arm, k), int(chance.random() < 0.2), n // 4) for k in range(4))
            blocks.append(Block(arm, 'lb1', 'requests', 1.0, n, sum(one[1] for one in each),
                                tuple(float(round(chance.lognormvariate(4.4, 0.6))) for _request in range(n)), servers=each))
        readings.append(Reading(tuple(blocks)))
    begin = time.process_time()
    for poll, reading in enumerate(readings):
        sample = Sample(float(poll + 1), 'router', reading)
        for condition in conditions:
            condition.update(sample)
    each_ms = (time.process_time() - begin) / POLLS * 1000
    print('One poll over %d sequential conditions costs %.2f ms (at most %g); their state is %.1f kB.' % (
        len(conditions), each_ms, LIMIT_MS, len(json.dumps(conditions[0].state.to_dict())) / 1000))
    return int(each_ms >= LIMIT_MS)


if __name__ == '__main__':
    sys.exit(main())

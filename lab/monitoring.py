# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's rules of Prometheus and routes of Alertmanager: those of the role monitoring, with seconds for minutes, as the stages have.

Made without a playbook, since the lab should be up in a moment, but of the same defaults, templates and of the inventory's own conditions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / '.collections'))

from ansible_collections.progressive.delivery.plugins.module_utils._monitoring import rules
from layout import SERVICE, Layout

_WINDOW, _INTERVAL, _HOLD = '10s', '1s', '20s'

ROLE = ROOT / 'roles' / 'monitoring'


def rules_text(lab: Layout) -> str:
    """Returns a file of rules for *lab*."""
    role, gates, here = (yaml.safe_load((ROOT / path).read_text()) for path in (
        ROLE / 'defaults/main.yml', 'roles/delivery/defaults/main.yml', 'inventories/local/group_vars/all.yml'))
    gates |= here
    limits = {name: gates['delivery_' + name] for name in ('error_ratio_abort', 'p95_pass_ms', 'p95_abort_ms', 'min_sample', 'min_events')}
    limits |= {name: role['monitoring_%s_abort' % name] for name in ('memory', 'cpu', 'failed_instances', 'workflow_errors')}
    limits |= {'workflow_phase_s': role['monitoring_workflow_phase_s'], 'objective': gates['delivery_success_criteria']['availability']}
    # No figures of nodes in the lab: all arms share one machine.
    queries = {**role['monitoring_queries'], 'memory': '', 'cpu': '',
               'workflow_errors': 'sum(increase(shop_workflow_failures_total{arm="$arm"}[$window]))'}
    return yaml.safe_dump(rules.from_options(
        [{'name': SERVICE, 'arms': {arm: {'backend': arm} for arm in lab.arms}, 'conditions': here['lab_conditions'],
          'sources': here['lab_sources']}],
        {'limits': limits, 'queries': queries, 'labels': {}, 'window': _WINDOW, 'interval': _INTERVAL, 'rolled_back_hold': _HOLD,
         'stuck_after': role['monitoring_stuck_after'],
         'for': {**dict.fromkeys(role['monitoring_for'], '0s'), 'no_data': _HOLD, 'lease': '5s'}}), sort_keys=False, width=200)


def alertmanager_text(lab: Layout) -> str:
    """Returns Alertmanager's configuration: what is critical pages somebody, and the rest can be read in the chat."""
    role, own = (yaml.safe_load((ROLE / part / 'main.yml').read_text()) for part in ('defaults', 'vars'))
    receivers = [{'name': name, 'webhook_configs': [{'url': 'http://127.0.0.1:%d/%s' % (lab.ports['pager'], name)}]}
                 for name in ('chat', 'page')]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters['to_json'] = json.dumps
    return environment.from_string((ROLE / 'templates' / 'alertmanager.yml.j2').read_text()).render({
        **role, '__monitoring_header': own['__monitoring_header'], 'monitoring_alertmanager_receivers': receivers,
        'monitoring_alertmanager_severities': {'critical': 'page'}, 'monitoring_alertmanager_wait': '1s',
        'monitoring_alertmanager_interval': '2s'})

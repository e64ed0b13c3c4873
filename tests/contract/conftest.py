# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planes of the contract suite, and the table of what it found."""

from __future__ import annotations

import contextlib

import planes
import pytest
import router_table
from cluster_lab import facts
from haproxy_lab import wait_for
from layout import LabError


def _no_cluster():
    """Why the planes of Kubernetes are left out; empty when they are not."""
    try:
        facts.load()
    except LabError as error:
        return str(error)
    return ''


NO_CLUSTER = _no_cluster()


def pytest_addoption(parser):
    parser.addoption('--write-table', action='store_true', help='write what was found into docs/routers.md, if all passed')


def pytest_generate_tests(metafunc):
    # One group a router: its tests share a data plane, and each resets it.
    if 'opened' in metafunc.fixturenames:
        metafunc.parametrize('opened', [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name, make in planes.PLANES.items()
                                        if not (NO_CLUSTER and isinstance(make(), planes.Kube))], indirect=True, scope='module')


@pytest.fixture(scope='session')
def home():
    with contextlib.ExitStack() as stack:
        yield planes.Home(stack)


@pytest.fixture(scope='module')
def opened(request):
    plane = planes.PLANES[request.param]()
    needed = (request.getfixturevalue('home'),) if isinstance(plane, planes.Kube) else ()
    with plane.opened(*needed):
        yield plane


@pytest.fixture
def plane(opened):
    """A router whose service has all of its traffic on blue, owned by nobody."""
    opened.do(state='way_back', rollout=None)
    if opened.look()['configured_bp'] != {'blue': 10000}:
        opened.do(split={'blue': '100%'}, stable='blue', force=True, rollout=None)
    wait_for(lambda: _tally(opened) == {'blue': 60}, 'all traffic of %s to be on blue' % opened.name, 60)
    return opened


def _tally(plane):
    with contextlib.suppress(OSError):
        return plane.tally(60)


@pytest.fixture
def found(record_property, plane):
    """A function that puts a measured value into the router's row."""
    return lambda column, text: record_property('contract', [plane.name, column, text])


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    rows = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, 'user_properties', ()):
                if key == 'contract' and report.when == 'call':
                    rows.setdefault(value[0], {})[value[1]] = value[2]
    table = [{**router_table.row(name), **rows[name]} for name in planes.PLANES if name in rows]
    if table:
        terminalreporter.section('routers')
        terminalreporter.write(router_table.render(table))
    if NO_CLUSTER:
        terminalreporter.write_line('The routers of Kubernetes were left out: ' + NO_CLUSTER)
    if config.getoption('--write-table') and not exitstatus and len(table) == len(planes.PLANES):
        router_table.write(table)

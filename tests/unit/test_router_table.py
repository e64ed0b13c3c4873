# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of docs/routers.md says what the routers themselves say."""

from __future__ import annotations

import router_table


def test_the_documented_capabilities_are_those_of_the_routers():
    wanted = [{column: cell for column, cell in router_table.row(name).items() if column not in router_table.MEASURED}
              for name in router_table.CASES]
    found = [{column: cell for column, cell in one.items() if column not in router_table.MEASURED} for one in router_table.documented()]
    assert found == wanted


def test_measured_cells_tell_of_no_lost_request_and_of_no_share_beyond_chance():
    for one in router_table.documented():
        assert one['lost requests'].startswith(('0 of ', '–')), one
        assert one['worst share error'] == '–' or float(one['worst share error'].split()[0]) <= 4, one

# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The grammar of every name that reaches a runtime socket, a configuration file or a query (law 11)."""

from __future__ import annotations

import re

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput

# HAProxy itself allows letters, digits, '-', '_', '.' and ':' in proxy and server names
# (configuration manual, section 4). A leading '-' is left out so that no name reads as an option.
_NAME = re.compile(r'[A-Za-z0-9_.:][A-Za-z0-9_.:-]{0,126}')
# What may stand in the record that travels with a split: no ',', '=', '/', ';', '\\', quotes or blanks.
_TOKEN = re.compile(r'[A-Za-z0-9_.:@+~-]{1,200}')
_PATH = re.compile(r'[A-Za-z0-9_.:@+~/-]{1,400}')


def check_name(what: str, value: object) -> str:
    """Returns *value* when it is a name of an arm, a backend, a server, a service or an endpoint.

    Raises BadInput that names *what* otherwise.
    """
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise BadInput(
        "The %s %r is not a valid name: use letters, digits, '_', '.', ':' and '-' only, "
        'at most 127 of them, without a leading dash.' % (what, value))


def check_token(what: str, value: object) -> str:
    """Returns *value* when it may stand in a split's record (a rollout id, a user, a version)."""
    if isinstance(value, str) and _TOKEN.fullmatch(value):
        return value
    raise BadInput(
        "The %s %r cannot be stored: use letters, digits and the signs '_.:@+~-' only, at most 200 of them." % (what, value))


def check_path(what: str, value: object) -> str:
    """Returns *value* when it is an absolute path that can stand unquoted in a runtime command."""
    if isinstance(value, str) and value.startswith('/') and _PATH.fullmatch(value) and '/../' not in value + '/':
        return value
    raise BadInput(
        "The %s %r is not usable: give an absolute path of letters, digits and the signs '_.:@+~/-' only." % (what, value))


def clean_token(value: object, fallback: str = 'unknown') -> str:
    """Makes a token of any text (a user name from the environment, say): what does not fit becomes '_'."""
    return re.sub(r'[^A-Za-z0-9_.:@+~-]', '_', str(value or ''))[:200] or fallback

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
# Names of Kubernetes objects: DNS subdomains (RFC 1123); labels and label values as the API checks them.
_DNS = re.compile(r'(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*')
_LABEL_KEY = re.compile(r'(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?')
_LABEL_VALUE = re.compile(r'(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?')
_IMAGE = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,499}')
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


def check_dns_name(what: str, value: object) -> str:
    """Returns *value* when it is a name that a Kubernetes object can have."""
    if isinstance(value, str) and _DNS.fullmatch(value):
        return value
    raise BadInput('The %s %r is not a name that Kubernetes allows: use lower-case letters, digits, \'-\' and \'.\' only.' % (what, value))


def check_annotation(what: str, value: object) -> str:
    """Returns *value* when it can be the name of an annotation, behind its prefix."""
    if isinstance(value, str) and _LABEL_VALUE.fullmatch(value) and value:
        return value
    raise BadInput('The %s %r cannot name an annotation, where Kubernetes keeps its record: use letters, digits, \'-\', \'_\' and \'.\' '
                   'only, at most 63 of them, and a letter or digit at both ends.' % (what, value))


def check_labels(what: str, value: object) -> dict[str, str]:
    """Returns *value* when it is a dictionary of Kubernetes labels with at least one."""
    if isinstance(value, dict) and value and all(
            isinstance(key, str) and _LABEL_KEY.fullmatch(key) and isinstance(text, str) and _LABEL_VALUE.fullmatch(text)
            for key, text in value.items()):
        return dict(value)
    raise BadInput('The %s %r are not Kubernetes labels: give a dictionary such as {app: shop, version: v2}.' % (what, value))


def check_port(what: str, value: object) -> int:
    """Returns *value* as a number when it is a TCP port."""
    number = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ''
    if re.fullmatch(r'[0-9]{1,5}', number) and 1 <= int(number) <= 65535:
        return int(number)
    raise BadInput('The %s %r is not a port: give a number from 1 to 65535.' % (what, value))


def check_image(what: str, value: object) -> str:
    """Returns *value* when it names a container image."""
    if isinstance(value, str) and _IMAGE.fullmatch(value):
        return value
    raise BadInput('The %s %r is not the name of an image, such as registry.example/tools/python:3.12.' % (what, value))


def clean_token(value: object, fallback: str = 'unknown') -> str:
    """Makes a token of any text (a user name from the environment, say): what does not fit becomes '_'."""
    return re.sub(r'[^A-Za-z0-9_.:@+~-]', '_', str(value or ''))[:200] or fallback

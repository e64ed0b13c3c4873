# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the answers of a Kubernetes API server mean, a sentence each. Pure.

A refusal's body is a ``Status`` object; what each code means: Kubernetes API conventions, 'HTTP Status codes'.
"""

from __future__ import annotations

import json
import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._errors import (
    Conflict, DeliveryError, Refused, Unreachable, Unsupported)
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Ref


def decoded(body: bytes) -> t.Any:
    """Returns the JSON of an answer, or its text as ``{'message': ...}``."""
    try:
        return json.loads(body)
    except ValueError:
        return {'message': body.decode('utf-8', 'replace')}


def passing(status: int) -> bool:
    """Whether a refusal is one that passes: the server is busy, restarts, or cannot reach its storage."""
    return status == 429 or status in (500, 502, 503, 504)


def error(verb: str, ref: Ref, cluster: str, status: int, body: bytes, missing: bool) -> DeliveryError | None:
    """Returns what a refusal is; None for an object that does not exist, unless it had to be there (*missing*)."""
    answer = decoded(body)
    answer = answer if isinstance(answer, dict) else {}
    said = ' '.join(str(answer.get('message') or 'HTTP %d' % status).split())[:400].rstrip('.')
    what = 'to %s %s' % (verb, ref) if ref.name or ref.group else 'to %s %s' % (verb, ref.plural)
    if status == 404:
        details = answer.get('details') or {}
        if not details.get('name') and not (answer.get('kind') == 'Status' and 'namespaces "' in said):
            return Unsupported('%s does not serve %s (%s): install its CustomResourceDefinition, or choose another router.' % (
                first(cluster), ref.resource, '%s/%s' % (ref.group, ref.version) if ref.group else ref.version))
        if verb in ('get', 'delete') and not missing:
            return None
        return Conflict('%s is not there (any more): %s.' % (first(str(ref)), said))
    if status == 401:
        return Refused('%s does not know who asks (401): the token or certificate of the kubeconfig is wrong or has run out; '
                       'renew it there, the next attempt reads it.' % first(cluster))
    if 'admission webhook' in said or 'failed calling webhook' in said or 'ValidatingAdmissionPolicy' in said:
        return Refused('An admission rule of %s refused %s: %s.' % (cluster, what, said))
    if status == 403:
        return Refused('This user of %s may not %s: %s. Grant it with a Role in that namespace.' % (cluster, what[3:], said))
    if status == 409:
        return Conflict('%s was changed by somebody else since it was read: nothing was overwritten (%s).' % (first(str(ref)), said))
    if status == 422 and ' is invalid' not in said:
        # A patch's test failed: the message says no more than that.
        return Conflict('%s is not as it was when the change was planned: nothing was overwritten.' % first(str(ref)))
    if passing(status):
        return Unreachable('%s did not answer when asked %s: HTTP %d, %s.' % (first(cluster), what, status, said))
    return Refused('%s refused %s: %s.' % (first(cluster), what, said))


def first(text: str) -> str:
    """Returns *text* as a sentence begins."""
    return text[:1].upper() + text[1:]


def reason(exc: BaseException) -> str:
    """Returns the innermost cause of a failed connection, in short."""
    seen = {id(exc)}
    while True:
        inner = getattr(exc, 'reason', None) or exc.__cause__ or (exc.__context__ if not isinstance(exc, OSError) else None)
        if not isinstance(inner, BaseException) or id(inner) in seen:
            break
        seen.add(id(inner))
        exc = inner
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    text = ' '.join(str(exc).split())[:300].rstrip('.') or type(exc).__name__
    return text.rsplit('>: ', 1)[-1]

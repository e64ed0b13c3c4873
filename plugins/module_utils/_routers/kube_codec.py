# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What a kind of Kubernetes object must say of itself so that it can split traffic: the protocol of a codec. Pure.

``kube_router.KubeRouter`` does the rest for every kind: it reads the objects that ``refs`` names, asks ``decode`` what they mean,
lets ``encode`` say what they shall be, and makes of the difference one JSON patch an object (``_kube/objects.py``: ``diff`` for a
forward change, sent with a test of the resourceVersion; ``robust`` for a way back, which tests only names, so that it fits whatever
the weights are). The record of the split (owner, since, rev, stable arm, versions, lease) lies in the annotation
``progressive.delivery/<service>`` of the object under the key ``home``; the router writes and reads it, a codec never does.

How to add a kind:
1. Write a class with these methods in a file of its own (``kube_<kind>.py``). Its constructor takes ``(endpoint, service, arms)``:
   ``endpoint.kube`` has namespace, object, kind, rules and port (``endpoint.py``, ``KubeOptions``), ``endpoint.options`` what else the
   user wrote; an arm has ``backend`` (the name of its Service, by default the arm's own name) and ``ref`` (the other members, checked
   by you with ``check_ref``). It raises BadInput for what it cannot understand.
2. Put its name into ``KUBE_ROUTERS`` of ``endpoint.py`` and into ``_CODECS`` of ``registry.py``; options that only it knows into
   ``ENDPOINT_SPEC`` and ``doc_fragments/endpoints.py``.
3. Test that ``decode(encode(objects, split))`` is the split, for any split it does not refuse, and that nothing else changed.

Objects are plain JSON data as the API gives them, None when there is none. A codec changes none that it is given: it copies.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput
from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref
from ansible_collections.progressive.delivery.plugins.module_utils._routers.base import Arm, Capabilities
from ansible_collections.progressive.delivery.plugins.module_utils._split import Match, Mirror, Split

Objects = t.Mapping[str, t.Optional[Obj]]
"""The objects of an endpoint, by the keys of ``Codec.refs``."""


@dataclass(frozen=True)
class Wanted:
    """An object to read. One that is not *required* may be missing: it is created by a change, or it only tells something."""

    ref: Ref
    required: bool = True
    verbs: tuple[str, ...] = ()
    """What a change may have to do to it (create, patch, delete): permissions are asked for before the first one. The home is patched."""


@dataclass(frozen=True)
class Decoded:
    """What the objects say. A lease that the objects themselves carry is not considered: it is as if it lived."""

    weights: t.Mapping[str, int]
    """Arm to weight, in any unit. Arms that have none may be left out. Empty when there is nothing that can be read."""
    unknown: tuple[str, ...] = ()
    """Services (subsets, pools) that take part and belong to no arm. Their weights are in nobody's share."""
    matches: tuple[Match, ...] = ()
    sticky: str = 'none'
    mirror: Mirror | None = None
    stable: str | None = None
    """The stable arm where the objects themselves say it (the main Ingress); else the record does, or the largest weight."""
    uniform: bool = True
    """False when the objects do not have the form that ``encode`` gives them, so that the same split has to be written again:
    two rules with different weights, say."""
    problems: tuple[str, ...] = ()
    """Sentences on why nothing can be written here."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should read."""
    settled: tuple[str, ...] = ()
    """Keys of objects that are as every split wants them: no permission to change them is needed."""


@dataclass(frozen=True)
class Instances:
    """How to count what can take a request of an arm: ready endpoints of *service*, or ready pods with *labels*."""

    service: str | None = None
    labels: t.Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    """Where they are, if not in the endpoint's namespace."""


@dataclass(frozen=True)
class Accepted:
    """Whether the controller has taken the objects as they are now (L1). *ok* is None while it has not said so yet."""

    ok: bool | None
    text: str
    sure: bool = True
    """Whether that is said of the objects as they are now; else what is known is L0."""


class Codec(t.Protocol):
    """One kind of object, for one endpoint and one service."""

    home: str
    """Key of the object that carries the record. It must be required."""
    admin_path: str
    """What to ask the administration of a data plane for (``admin`` of the endpoint), '' when it cannot be asked."""
    servers_path: str
    """The same for whom it knows behind its destinations, '' when it cannot be asked, or hears of them with the route."""

    def refs(self) -> dict[str, Wanted]:
        """Returns the objects to read, by a key of your choice. Names come from options that were checked (``check_dns_name``)."""

    def capabilities(self) -> Capabilities:
        """What the kind can represent. ``verify`` has L0, and L1 if ``accepted`` can tell; the router adds what its data plane tells.

        ``native_lease``: whether ``encode`` uses the deadline, so that the data plane itself ends the split. Without it the
        router keeps a Lease and a Job in the cluster.
        """

    def decode(self, objects: Objects) -> Decoded:
        """Returns what *objects* say. Never raises: what cannot be understood is a problem, an unknown arm or no weight."""

    def encode(self, objects: Objects, split: Split, deadline_s: float | None = None) -> dict[str, Obj | None]:
        """Returns what the objects shall be, in the order in which they are to be written; None deletes one, one that was None is created.

        Objects that stay as they are may be left out. *split* has all that a user asked for: shares that sum to 10 000 (bring
        them to the kind's unit with ``_split.fit``), matches, stickiness; arms that it does not name get nothing.
        ``all_to(arm)`` is the permanent split and every way back: no rest of a match, a mirror or a session may lead to another
        arm after it. *deadline_s* (seconds since 1970, the API server's clock) is given for a leased split if ``native_lease``.
        Foreign fields stay. Raises Unsupported with a sentence for what the kind, or this object, cannot do.
        """

    def named(self, objects: Objects, split: Split) -> dict[str, Obj | None]:
        """Returns what the objects shall be before the arms of *split* get their shares: the arms they never had are in, without any.

        For data planes that learn of destinations and of routes apart. Nothing where that is not needed.
        """

    def hold(self, objects: Objects, key: str, new: Obj | None) -> str:
        """Returns what must be ready, a sentence, before *new* may be written in place of *key*; nothing if that may be done now."""

    def instances(self, objects: Objects) -> dict[str, Instances]:
        """Returns how to count what can serve each arm. An arm that is left out is taken as if nobody could."""

    def accepted(self, objects: Objects) -> Accepted:
        """Returns whether the controller has accepted *objects*; asked only if ``verify`` has L1."""

    def unseen(self, objects: Objects, told: t.Any) -> str:
        """Returns what of *objects* a data plane does not have yet (L2), '' when it has all. *told*: its answer at ``admin_path``."""

    def unserved(self, split: Split, told: t.Any) -> str:
        """Returns which arms of *split* a data plane knows nobody behind, '' for none. *told*: its answer at ``servers_path``."""


class Plain:
    """What most kinds answer: nothing is held up, and no data plane can be asked."""

    admin_path = ''
    servers_path = ''

    def named(self, objects: Objects, split: Split) -> dict[str, Obj | None]:
        return {}

    def hold(self, objects: Objects, key: str, new: Obj | None) -> str:
        return ''

    def unseen(self, objects: Objects, told: t.Any) -> str:
        return ''

    def unserved(self, split: Split, told: t.Any) -> str:
        return ''


def check_ref(arm: Arm, known: t.Collection[str], endpoint: str) -> None:
    """Raises BadInput when *arm* has a member that the kind does not know."""
    strange = sorted(set(arm.ref) - set(known))
    if strange:
        raise BadInput('The arm "%s" on %s has the unknown option "%s": known are %s.' % (
            arm.name, endpoint, strange[0], ', '.join(('backend', *sorted(known)))))


def by_service(arms: t.Mapping[str, Arm]) -> dict[str, Instances]:
    """Returns the usual answer of ``instances``: each arm is the Service that its ``backend`` names."""
    return {name: Instances(service=arm.backend) for name, arm in arms.items()}

# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Who else writes an object, as far as the object tells. Pure.

Labels, annotations and owners are what each tool documents: Flagger (``flagger.kubernetes.io/original-configuration``, owner Canary),
Argo Rollouts (``argo-rollouts.argoproj.io/managed-by-rollouts`` on VirtualServices, ``rollouts.argoproj.io/gatewayapi-canary``),
OpenKruise (``rollouts.kruise.io/original-spec-configuration``), Argo CD (``argocd.argoproj.io/tracking-id``, ``.../instance``), Flux
(``kustomize.toolkit.fluxcd.io/name``, ``helm.toolkit.fluxcd.io/name``), Helm (``app.kubernetes.io/managed-by``).
"""

from __future__ import annotations

import typing as t

from ansible_collections.progressive.delivery.plugins.module_utils._kube.objects import Obj, Ref

CONSENT = 'progressive.delivery/gitops'
"""Annotation by which a route's owner says that his GitOps tool leaves the weights alone: its value is then ``ignored``."""

# Controllers that move the weights themselves: what gives them away, besides the name of a field manager.
_MOVERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    'Flagger': (('flagger.kubernetes.io/original-configuration',), ('Canary',), ('flagger',)),
    'Argo Rollouts': (('argo-rollouts.argoproj.io/managed-by-rollouts', 'rollouts.argoproj.io/gatewayapi-canary',
                       'rollout.argoproj.io/managed-by-rollouts'), ('Rollout',), ('rollouts-controller', 'argo-rollouts')),
    'OpenKruise Rollouts': (('rollouts.kruise.io/original-spec-configuration',), (), ('kruise-rollout', 'kruise-rollouts')),
}
# Tools that bring back what lies in a repository.
_KEEPERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'Argo CD': (('argocd.argoproj.io/tracking-id', 'argocd.argoproj.io/instance'), ('argocd-controller', 'argocd-application-controller')),
    'Flux': (('kustomize.toolkit.fluxcd.io/name', 'helm.toolkit.fluxcd.io/name'), ('kustomize-controller', 'helm-controller')),
}


def foreign(ref: Ref, obj: Obj) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns sentences on owners beside whom nothing may be written, and on such that a person should know."""
    meta = obj.get('metadata', {})
    marks: dict[str, t.Any] = {**(meta.get('annotations') or {}), **(meta.get('labels') or {})}
    owners = [owner for owner in meta.get('ownerReferences') or () if owner.get('controller', True)]
    managers = {entry.get('manager', '') for entry in meta.get('managedFields') or () if entry.get('subresource') != 'status'}
    problems, notes = [], []
    for name, (keys, kinds, agents) in _MOVERS.items():
        owner = next((owner for owner in owners if owner.get('kind') in kinds), None)
        if owner or any(key in marks for key in keys) or managers & set(agents):
            problems.append('The %s is moved by %s%s: two tools would overwrite each other; end its rollout there, or leave this one '
                            'to it.' % (ref, name, ' (%s "%s")' % (owner.get('kind'), owner.get('name')) if owner else ''))
    if marks.get(CONSENT) != 'ignored' and not _reconciles_not(marks):
        for name, (keys, agents) in _KEEPERS.items():
            if any(key in marks for key in keys) or managers & set(agents):
                problems.append('The %s is kept by %s, which would put the weights back to what its repository says: make it ignore '
                                'them there, and say so with the annotation %s: ignored.' % (ref, name, CONSENT))
    if owners and not problems:
        notes.append('The %s belongs to %s "%s", which may rewrite it.' % (ref, owners[0].get('kind'), owners[0].get('name')))
    if marks.get('app.kubernetes.io/managed-by') == 'Helm':
        notes.append('The %s was installed by Helm: its next upgrade puts the weights of the chart in.' % ref)
    return tuple(problems), tuple(notes)


def _reconciles_not(marks: t.Mapping[str, t.Any]) -> bool:
    """Whether Flux itself was told to leave the object alone."""
    return marks.get('kustomize.toolkit.fluxcd.io/reconcile') == 'disabled' or str(
        marks.get('kustomize.toolkit.fluxcd.io/ssa')).lower() in ('ignore', 'ifnotpresent')

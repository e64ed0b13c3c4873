# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a Deployment has come, and why it does not get on: from objects as an API server gives them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.progressive.delivery.plugins.module_utils._kube.workload import (
    REVISION, Patience, Status, Symptom, clean, examine, sentence, stopped)
from ansible_collections.progressive.delivery.plugins.module_utils._kube.workload_reads import selector_text

NOT_FOUND = ('Back-off pulling image "reg.example/shop:9": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack '
             'image "reg.example/shop:9": not found')


def deployment(replicas=2, updated=None, available=None, total=None, generation=2, observed=2, conditions=(), **spec):
    updated = replicas if updated is None else updated
    return {'metadata': {'name': 'shop', 'uid': 'd', 'generation': generation, 'annotations': {REVISION: '3'}},
            'spec': {'replicas': replicas, **spec},
            'status': {'observedGeneration': observed, 'replicas': updated if total is None else total, 'updatedReplicas': updated,
                       'availableReplicas': updated if available is None else available, 'conditions': list(conditions)}}


def replica_set(revision='3', uid='r3', conditions=()):
    return {'metadata': {'name': 'shop-' + revision, 'uid': uid, 'annotations': {REVISION: revision},
                         'ownerReferences': [{'uid': 'd', 'controller': True}]}, 'status': {'conditions': list(conditions)}}


def pod(name='p1', ready=False, owner='r3', container=None, conditions=(), spec=None, **status):
    container = {'name': 'shop', 'image': 'reg.example/shop:9', 'ready': ready, 'restartCount': 0, 'state': {'running': {}},
                 **(container or {})}
    return {'metadata': {'name': name, 'uid': name, 'ownerReferences': [{'uid': owner, 'controller': True}]},
            'spec': {'containers': [spec or {'name': 'shop', 'readinessProbe': {'periodSeconds': 5}}]},
            'status': {'phase': 'Running', 'containerStatuses': [container], **status,
                       'conditions': [{'type': 'Ready', 'status': 'True' if ready else 'False'}, *conditions]}}


def event(reason, message, about='p1', at='2026-11-22T18:00:00Z'):
    return {'metadata': {'creationTimestamp': at}, 'involvedObject': {'uid': about}, 'reason': reason, 'message': message,
            'lastTimestamp': at}


def waiting(reason, message='', restarts=0, **more):
    return {'state': {'waiting': {'reason': reason, 'message': message}}, 'restartCount': restarts, **more}


def only(status):
    assert not status.done
    found, = status.symptoms
    return found


def test_a_deployment_is_done_when_all_of_its_pods_are_new_and_available():
    done = examine(deployment(), [replica_set()], [pod('a', True), pod('b', True)])
    assert done.done and (done.desired, done.updated, done.ready, done.total, done.symptoms) == (2, 2, 2, 2, ())
    assert [item['ready'] for item in done.pods] == [True, True]


@pytest.mark.parametrize('changes, waits_for', [
    ({'generation': 3}, 'the Deployment controller'), ({'updated': 1}, '1 of 2 pods to be made'),
    ({'available': 1}, '1 of 2 pods to be available'), ({'total': 3}, '1 pods of another revision to end')])
def test_what_is_not_there_yet_is_waited_for(changes, waits_for):
    assert waits_for in examine(deployment(**changes), [replica_set()], [pod('a', True), pod('b', True)]).waits_for


def test_more_pods_can_be_needed_than_the_deployment_has():
    assert examine(deployment(), [replica_set()], [pod('a', True), pod('b', True)], wanted=3).waits_for == '1 of the 3 pods that are needed'


def test_pods_of_another_revision_have_nothing_to_say():
    old = pod('old', owner='r2', container=waiting('CrashLoopBackOff', restarts=9, lastState={'terminated': {'exitCode': 1}}))
    found = examine(deployment(available=0), [replica_set(), replica_set('2', 'r2')], [old])
    assert found.symptoms == () and found.pods == ()


def test_a_pod_that_is_about_to_end_is_not_counted_as_ready():
    leaving = pod('a', True)
    leaving['metadata']['deletionTimestamp'] = '2026-11-22T18:00:00Z'
    assert examine(deployment(), [replica_set()], [leaving, pod('b', True)]).ready == 1


@pytest.mark.parametrize('reason, message, final', [
    ('ImagePullBackOff', NOT_FOUND, True), ('ErrImagePull', 'dial tcp: lookup reg.example: no such host', False),
    ('ErrImagePull', 'pull access denied, repository does not exist', True), ('InvalidImageName', 'couldn\'t parse image name', True),
    ('ErrImageNeverPull', 'Container image is not present with pull policy of Never', True)])
def test_an_image_that_cannot_be_pulled(reason, message, final):
    found = only(examine(deployment(available=0), [replica_set()], [pod(container=waiting(reason, message)),
                                                                    pod('p2', container=waiting(reason, message))]))
    assert (found.kind, found.final, found.pods) == ('image_pull', final, ('p1', 'p2'))
    assert 'reg.example/shop:9 cannot be pulled' in found.text and 'Back-off' not in found.text


def test_what_the_registry_said_is_looked_up_when_the_pod_only_says_that_it_backs_off():
    one = pod(container=waiting('ImagePullBackOff', 'Back-off pulling image "x"'))
    found = only(examine(deployment(available=0), [replica_set()], [one],
                         [event('Failed', 'Failed to pull image "x": manifest unknown'), event('Pulling', 'Pulling image "x"')]))
    assert found.final and 'manifest unknown' in found.text


@pytest.mark.parametrize('restarts, final', [(1, False), (2, True)])
def test_a_container_that_ends_again_and_again(restarts, final):
    crash = waiting('CrashLoopBackOff', 'back-off 10s', restarts, lastState={'terminated': {'exitCode': 3, 'reason': 'Error'}})
    found = only(examine(deployment(available=0), [replica_set()], [pod(container=crash)]))
    assert (found.kind, found.final, found.log) == ('crash_loop', final, ('p1', 'shop', True))
    assert found.text == 'the container shop ends with exit code 3'


def test_between_two_crashes_it_is_still_a_crash_loop():
    again = {'state': {'running': {}}, 'restartCount': 1, 'lastState': {'terminated': {'exitCode': 137, 'reason': 'OOMKilled'}}}
    found = only(examine(deployment(available=0), [replica_set()], [pod(container=again)]))
    assert found.kind == 'crash_loop' and 'OOMKilled' in found.text


def test_the_log_of_a_container_that_has_just_ended_is_its_own():
    found = only(examine(deployment(available=0), [replica_set()], [pod(container={'state': {'terminated': {'exitCode': 1}}})]))
    assert found.log == ('p1', 'shop', False)


def test_a_liveness_probe_that_kills_is_named():
    crash = waiting('CrashLoopBackOff', '', 2, lastState={'terminated': {'exitCode': 143}})
    found = only(examine(deployment(available=0), [replica_set()], [pod(container=crash)],
                         [event('Killing', 'Container shop failed liveness probe, will be restarted')]))
    assert 'its livenessProbe fails' in found.text


def test_an_init_container_that_is_done_is_no_crash():
    one = pod(initContainerStatuses=[{'name': 'init', 'restartCount': 0, 'state': {'terminated': {'exitCode': 0}}}])
    assert [item.kind for item in examine(deployment(available=0), [replica_set()], [one]).symptoms] == ['not_ready']
    one = pod(container=waiting('PodInitializing'), initContainerStatuses=[
        {'name': 'init', 'restartCount': 2, **waiting('CrashLoopBackOff', restarts=2, lastState={'terminated': {'exitCode': 1}})}])
    assert 'the container init ends with exit code 1' in only(examine(deployment(available=0), [replica_set()], [one])).text


def unschedulable(events=()):
    return examine(deployment(available=0), [replica_set()], [pod(phase='Pending', containerStatuses=[], conditions=[
        {'type': 'PodScheduled', 'status': 'False', 'reason': 'Unschedulable',
         'message': '0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available.'}])], events)


def test_a_pod_that_no_node_takes():
    found = only(unschedulable())
    assert found.kind == 'unschedulable' and '1 Insufficient cpu' in found.text and not found.final
    assert unschedulable([event('TriggeredScaleUp', 'pod triggered scale-up')]).symptoms == ()


QUOTA = 'pods "shop-3-x" is forbidden: exceeded quota: small, requested: cpu=100m, used: cpu=1, limited: cpu=1'


@pytest.mark.parametrize('message, kind, said, final', [
    (QUOTA, 'quota', 'exceeded quota: small', False),
    ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', 'refused', 'Pod Security', True),
    ('pods "x" is forbidden: error looking up service account shop/x: serviceaccount "x" not found', 'refused', 'serviceaccount', False),
    ('pods "x" is forbidden: failed quota: small: must specify cpu for: shop', 'quota', 'wants resources', True)])
def test_pods_that_are_not_even_made(message, kind, said, final):
    failure = {'type': 'ReplicaFailure', 'status': 'True', 'reason': 'FailedCreate', 'message': message}
    above, below = deployment(updated=0, conditions=[failure]), [replica_set(conditions=[failure])]
    for where in ((above, [replica_set()]), (deployment(updated=0), below), (above, below)):
        found = only(examine(*where, []))
        assert (found.kind, found.final) == (kind, final) and said in found.text and 'pods "x"' not in found.text


def test_a_probe_that_does_not_pass_is_named_and_gets_its_own_time():
    spec = {'name': 'shop', 'startupProbe': {'periodSeconds': 1, 'failureThreshold': 60}, 'readinessProbe': {'periodSeconds': 2}}
    events = [event('Unhealthy', 'Readiness probe failed: HTTP probe failed with statuscode: 503'),
              event('Unhealthy', 'Startup probe failed: connection refused')]
    found = only(examine(deployment(available=0), [replica_set()], [pod(container={'started': True}, spec=spec)], events))
    assert (found.kind, found.patience_s) == ('not_ready', 2)
    assert 'its readinessProbe does not pass: Readiness probe failed: HTTP probe failed with statuscode: 503' in found.text
    found = only(examine(deployment(available=0), [replica_set()], [pod(container={'started': False}, spec=spec)], events))
    assert (found.kind, found.patience_s) == ('not_started', 60) and 'its startupProbe does not pass: Startup probe failed' in found.text
    assert 'has not passed' in only(examine(deployment(available=0), [replica_set()], [pod(container={'started': True}, spec=spec)])).text


def test_a_volume_that_cannot_be_mounted_is_told_as_long_as_nothing_runs():
    events = [event('FailedMount', 'MountVolume.SetUp failed for volume "x": secret "x" not found')]
    starting = examine(deployment(available=0), [replica_set()], [pod(container=waiting('ContainerCreating'))], events)
    assert only(starting).kind == 'volume' and 'secret "x" not found' in only(starting).text
    assert only(examine(deployment(available=0), [replica_set()], [pod()], events)).kind == 'not_ready'


def test_a_container_that_cannot_be_created():
    found = only(examine(deployment(available=0), [replica_set()], [pod(container=waiting(
        'CreateContainerConfigError', 'secret "key" not found'))]))
    assert found.kind == 'container_config' and 'secret "key" not found' in found.text


def test_a_pod_that_failed_and_a_readiness_gate():
    assert only(examine(deployment(available=0), [replica_set()], [pod(phase='Failed', reason='Evicted', message='low on memory')])
                ).text == 'the pod failed (Evicted: low on memory)'
    gated = pod(container={'ready': True}, conditions=[{'type': 'ContainersReady', 'status': 'True'}])
    gated['spec']['readinessGates'] = [{'conditionType': 'lb/attached'}]
    assert 'readiness gate lb/attached' in only(examine(deployment(available=0), [replica_set()], [gated])).text


def test_a_paused_deployment_and_one_past_its_deadline():
    assert only(examine(deployment(updated=0, paused=True), [replica_set()], [])).kind == 'paused'
    late = {'type': 'Progressing', 'status': 'False', 'reason': 'ProgressDeadlineExceeded'}
    assert only(examine(deployment(available=0, conditions=[late], progressDeadlineSeconds=20), [replica_set()], [])).final


def test_the_cause_comes_before_what_follows_from_it():
    late = {'type': 'Progressing', 'status': 'False', 'reason': 'ProgressDeadlineExceeded'}
    status = examine(deployment(available=0, conditions=[late]), [replica_set()], [pod(container=waiting('ErrImagePull', 'no such host'))])
    assert [item.kind for item in status.symptoms] == ['image_pull', 'deadline']
    assert Patience(30).stall(status, 0).kind == 'image_pull'


def test_stopped_when_the_last_pod_has_ended():
    assert stopped(None, ()).done and stopped(deployment(0), ()).done
    assert 'scaled to 0' in stopped(deployment(1), ()).waits_for
    assert '1 pods to end' in stopped(deployment(0), [pod()]).waits_for


# ---- patience

def status(*symptoms):
    return Status(False, 'x', symptoms=symptoms)


CRASH, SLOW = Symptom('crash_loop', 'it crashes', 'Mend it'), Symptom('not_ready', 'it is slow', 'Wait', patience_s=60)


def test_what_may_pass_gets_its_grace_and_starts_anew_after_it_was_gone():
    patience = Patience(30)
    assert patience.stall(status(CRASH), 100) is None
    assert patience.stall(status(CRASH), 129.9) is None
    assert patience.stall(status(), 130) is None
    assert patience.stall(status(CRASH), 131) is None
    assert patience.stall(status(CRASH), 161) == CRASH


def test_a_probe_gets_what_it_allows_besides():
    patience = Patience(30)
    patience.stall(status(SLOW), 0)
    assert patience.stall(status(SLOW), 89.9) is None
    assert patience.stall(status(SLOW), 90) == SLOW


@given(st.floats(0, 1000), st.lists(st.floats(0, 50), min_size=1, max_size=30))
def test_a_symptom_that_stays_stalls_exactly_when_the_grace_is_over(grace, steps):
    patience, now = Patience(grace), 0.0
    for step in [0.0, *steps]:
        now += step
        assert (patience.stall(status(CRASH), now) is not None) == (now >= grace)


# ---- text

@given(st.text(max_size=500))
@example('0 .')
def test_foreign_text_becomes_one_harmless_line(text):
    line = clean('\x1b[31m' + text, 100)
    assert len(line) <= 100 and '\x1b' not in line and '\n' not in line and clean(line, 100) == line


def test_the_sentence_says_what_where_why_and_what_to_do():
    found = Symptom('crash_loop', 'the container shop ends with exit code 1', 'Correct the version', pods=('a', 'b'))
    assert sentence('Deployment "shop" in namespace "x"', found, Status(False, 'x', desired=3, ready=1), 'no such table\x1b[0m\n') == (
        'Deployment "shop" in namespace "x" does not come up: the container shop ends with exit code 1, on 2 of 3 pods; its log ends with '
        '"no such table" (1 of 3 ready). Correct the version.')


@pytest.mark.parametrize('selector, text', [
    ({'matchLabels': {'b': '2', 'a': '1'}}, 'a=1,b=2'),
    ({'matchLabels': {'a': '1'}, 'matchExpressions': [{'key': 'k', 'operator': 'In', 'values': ['y', 'x']},
                                                      {'key': 'e', 'operator': 'Exists'},
                                                      {'key': 'n', 'operator': 'DoesNotExist'},
                                                      {'key': 'o', 'operator': 'NotIn', 'values': ['z']}]},
     'a=1,k in (x,y),e,!n,o notin (z)')])
def test_selectors_as_queries(selector, text):
    assert selector_text(selector) == text

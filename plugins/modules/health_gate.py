#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Watch a stage of a rollout, and return the traffic at the first proof that it is bad
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Samples what a service does for the time of O(bake), in one task, and ends with one of the verdicts V(pass), V(fail), V(inconclusive),
    V(no_data) and V(error), with the numbers behind it.
  - A condition that is proven to be violated ends the watch at once. With O(leases) the traffic is then returned to the healthy arm in the
    same process, before anything is displayed or recorded, and the task fails with the reason.
  - While it watches, it renews the leases it is given, whatever the sources of observations do. When it is interrupted by SIGINT or
    SIGTERM, or when C(ansible-playbook) is killed, it returns the traffic before it ends.
  - It runs on the control host, or where O(run_on) says.
extends_documentation_fragment:
  - progressive.delivery.gate
attributes:
  check_mode:
    support: full
    description: Checks all options, says what it would watch, and opens no connection.
  diff_mode:
    support: none
    description: A gate has nothing to compare; the shares before and after are those of M(progressive.delivery.traffic_weight).
  idempotent:
    support: none
    description: It observes what happens at the moment.
  action:
    support: full
    description: Runs on the control host, or where O(run_on) says.
  platform:
    support: full
    platforms: posix
    description: Target OS families.
options:
  stage:
    description: What the stage is called in the live line and in the journal. Without it, O(candidate) and O(share_bp).
    type: str
  candidate:
    description: The arm that is judged.
    type: str
    required: true
  conditions:
    description:
      - What the stage is judged by. At least one must be required.
      - Abort limits are checked at every sample over the last O(conditions[].window). A sample beyond a limit fails when there are enough
        requests for a proof, in the window or, where that is too small, in the stage so far.
      - Pass limits are checked once, at the end, over the whole stage. Between the pass limit and the abort limit the verdict is
        V(inconclusive).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the condition is called. Default is the metric.
        type: str
      type:
        description:
          - The kind of condition, V(threshold) (the default) or V(sequential).
          - V(sequential) asks how much more likely the harm of O(candidate) is than its absence, at each look, and fails when that
            reaches 1/O(alpha). It passes at the end when harm above what is tolerated is excluded. It knows the keys V(above_ms), V(ratio),
            V(margin), V(pass_ratio), V(pass_margin), V(direction), V(weight), V(min_events), V(min_sample), V(burst), V(harm),
            V(must_pass), V(warm_up), V(source) and V(metric).
        type: str
      source:
        description: Name of the source. Default V(router).
        type: str
      metric:
        description:
          - What is measured. Of the source V(router) - V(error_ratio), V(success_ratio), V(errors), V(requests), V(request_rate),
            V(share_bp), V(attempt_error_ratio); with a ring the latency quantiles V(latency_p50), V(latency_p95), V(latency_p99.9) and so
            on; and the gauges V(servers_up), V(servers_up_ratio), V(servers_down), V(retries), V(redispatches), V(queue), V(sessions).
          - At routes of a cluster the servers are the arm's pods that are not being deleted, and up is ready. Besides, V(restarts) and
            V(oom_kills) of their containers since the gate began, V(crash_loops) (containers that wait after a crash), V(cpu_ratio) and
            V(memory_ratio), the part of its limit that the pod uses that uses most, where the cluster serves C(metrics.k8s.io). Of
            several endpoints, a gauge is that of the one that sees the arm worst.
          - Of V(prometheus), the name of a query. Of V(http), V(probe_success_ratio), V(probe_error_ratio), V(probe_latency_p95) and so on.
          - A V(sequential) condition counts bad requests. It names V(errors), or V(latency) with O(conditions[].above_ms); of another
            source the V(errors) or the V(error_ratio) of one of its counts, V(checkout_errors) for counts named V(checkout).
          - A quantile is the value of nearest rank. It is above a limit when more than the share that may be slower is slower, counting
            requests that have no answer yet once they have waited longer than the limit.
        type: str
      arm:
        description: The arm that is measured. Default O(candidate).
        type: str
      compare:
        description:
          - What is compared with the limits. V(value), the default, is the arm's own value, V(difference) how much it is above that of
            O(stable), V(ratio) how many times that of O(stable) it is. A stable arm without any failure counts as if one of its requests
            had failed, a latency of it below 1 ms as 1 ms.
        type: str
      abort_above:
        description:
          - A sample with a value above it fails.
          - Ratios are numbers from 0 to 1 or percentages such as V(0.5%); latencies are milliseconds or durations such as V(1s).
        type: raw
      abort_below:
        description: A sample with a value below it fails.
        type: raw
      pass_above:
        description: The stage passes with a value above it.
        type: raw
      pass_below:
        description: The stage passes with a value below it.
        type: raw
      window:
        description: How far back a sample looks. Default V(60s).
        type: raw
      min_sample:
        description: Requests that a proof needs, and that a pass needs in the whole stage. Default V(10).
        type: int
      min_events:
        description: Bad requests that a proof needs. Default V(3).
        type: int
      consecutive_limit:
        description: Failing samples in a row that end the watch. Default V(1), without O(conditions[].total_limit).
        type: int
      total_limit:
        description: Failing samples in all that end the watch. Default none.
        type: int
      warm_up:
        description: Time at the beginning of the stage that does not count. Default O(warm_up).
        type: raw
      no_data_after:
        description: Time without any data that ends the watch with V(no_data). Default is not to end it early.
        type: raw
      required:
        description: Whether the verdict counts. What is not required is only reported. Default V(true).
        type: bool
      per_endpoint:
        description: Whether the abort limits hold behind each endpoint alone too. Default V(true).
        type: bool
      above_ms:
        description: Of a V(sequential) condition on latencies, the limit above which an answer is a bad one.
        type: raw
      ratio:
        description:
          - Of a V(sequential) condition. Harm is a rate of O(candidate) above O(conditions[].ratio) times that of O(stable) plus
            O(conditions[].margin). Default V(1).
          - With V(0), O(conditions[].margin) is a service-level objective that O(stable) has no part in.
        type: raw
      margin:
        description: See O(conditions[].ratio). A percentage such as V(0.1%) or a number such as V(0.001). Default V(0).
        type: raw
      pass_ratio:
        description: The ratio that a pass tolerates. Default O(conditions[].ratio).
        type: raw
      pass_margin:
        description:
          - The margin that a pass tolerates. Default O(conditions[].margin). With a ratio of V(1) and a margin of V(0) a candidate that is
            as good as O(stable) can never pass.
        type: raw
      direction:
        description: Of a V(sequential) condition, which change is harm, V(more) (the default) or V(fewer), of conversions for example.
        type: str
      weight:
        description: Part of O(alpha) that this V(sequential) condition has. Default is an equal part of what the others leave.
        type: raw
      burst:
        description: Requests that fail together, when it is known. Evidence is divided by it, or by what is measured if that is more.
        type: raw
      harm:
        description: The rate of O(candidate) that is worth catching. The plan tells how soon it would be found.
        type: raw
      must_pass:
        description:
          - Whether the stage needs the pass of this V(sequential) condition. With V(false) it can end a stage by a proof of harm, and does
            not hold it up. Default V(true).
        type: bool
  tell_plan:
    description:
      - Whether to show, after the first seconds, what the V(sequential) conditions can find. M(progressive.delivery.gate_plan) tells it
        before. It is recorded and returned in any case.
    type: bool
    default: true
  bake:
    description: How long the stage is watched, V(30m) for example, warm-up included.
    type: raw
    required: true
  interval:
    description: Time between two samples, at least 0.1 s. The first one comes earlier.
    type: raw
    default: 10s
  guard_interval:
    description:
      - Time between two looks at the router's own counters, which cost a few milliseconds. Limits that end a stage are checked at each
        look, so that harm is stopped well within an O(interval); what is shown, recorded and counted as a sample is one an O(interval).
      - A quarter of O(interval) when it is not given, at least 0.25 s and at most 1 s.
    type: raw
  warm_up:
    description: Time at the beginning of the stage that no condition counts, unless it says otherwise.
    type: raw
    default: 0
  counters:
    description:
      - The value RV(progressive.delivery.traffic_weight#module:counters) of the change that began the stage. What the arms did between it
        and the first look is counted then as well; without it, counting begins with the first look, most of a second later.
    type: dict
  leases:
    description: The values RV(progressive.delivery.traffic_weight#module:lease) to renew, and to take back on failure.
    type: list
    elements: dict
    default: []
  on_fail:
    description:
      - V(way_back) returns the traffic that O(leases) hold when the stage fails or the watch is interrupted.
      - V(hold) leaves the shares to whoever comes next. Nobody renews the leases then, so they run out by themselves.
    type: str
    default: way_back
    choices: [way_back, hold]
  approval:
    description:
      - What only a person can say, asked at the end of a bake that would pass. A text, or a dictionary of C(question), C(timeout) (default
        O(ask_timeout)) and C(by), the names of those who may answer (default anybody).
      - It is asked and answered, and the traffic watched meanwhile, as with V(ask) of O(policy).
    type: raw
  by:
    description: Who runs the rollout, the name of whoever answers at the terminal.
    type: str
    default: unknown
  share_bp:
    description: The share the candidate is meant to have, as a percentage or in basis points. For display.
    type: raw
  journal:
    description: File of the rollout's journal, to which the events C(sample), C(plan), C(note), C(asked), C(answered), C(verdict),
      C(analysis), C(way_back) and C(signal) are appended.
    type: path
  rollout:
    description: Id of the rollout, for the journal.
    type: str
  run_on:
    description:
      - V(target) watches from the task's host, for sockets that only this host sees. There is no live line then, the journal gets no
        C(sample) events, and the way back after an interruption begins when that host notices that the connection is closed.
    type: str
    choices: [control, target]
    default: control
seealso:
  - module: progressive.delivery.traffic_weight
"""

EXAMPLES = r"""
- name: Watch the canary for half an hour, and take it out when it is bad
  progressive.delivery.health_gate:
    service: shop
    candidate: canary
    stable: blue
    arms:
      blue: {backend: shop_blue}
      canary: {backend: shop_canary}
    endpoints:
      - {name: lb1, socket: unix:///run/haproxy/admin.sock, map: /etc/haproxy/delivery.map, ring: shop_events}
    bake: 30m
    leases: ["{{ moved.lease }}"]
    counters: "{{ moved.counters }}"
    conditions:
      - {name: errors, metric: error_ratio, abort_above: 0.5%, pass_below: 0.1%}
      - {name: latency, metric: latency_p95, abort_above: 1000, pass_below: 500}
      - {name: servers, metric: servers_up_ratio, abort_below: 0.5}

- name: Compare with the stable arm, and watch workers that only Prometheus knows
  progressive.delivery.health_gate:
    service: shop
    candidate: canary
    stable: blue
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    sources:
      prometheus:
        type: prometheus
        url: http://prometheus.example.com:9090
        queries:
          workers: 'sum(workers_alive{arm="$arm"})'
    bake: 10m
    interval: 5s
    policy: {inconclusive: extend}
    conditions:
      - {metric: error_ratio, compare: difference, abort_above: 1%}
      - {metric: latency_p99, compare: ratio, abort_above: 1.5}
      - {metric: workers, source: prometheus, abort_below: 56, pass_above: 60, consecutive_limit: 3}

- name: Prove harm against the stable arm, at any moment, with a false alarm in at most one of twenty rollouts
  progressive.delivery.health_gate:
    service: shop
    candidate: canary
    stable: blue
    arms: "{{ delivery_arms }}"
    endpoints: "{{ delivery_endpoints }}"
    bake: 30m
    policy: {inconclusive: extend}
    analysis_state: "{{ stage_before.analysis_state | default(omit) }}"
    conditions:
      - {name: errors, type: sequential, metric: errors, margin: 0.1%, pass_margin: 0.5%, harm: 1%, weight: 0.7}
      - {name: slow, type: sequential, metric: latency, above_ms: 500, margin: 1%, pass_margin: 3%}
  register: this_stage
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail), V(inconclusive), V(no_data) or V(error).
  returned: when it watched
  type: str
  sample: fail
passed:
  description: Whether the rollout may go on, after the policy for the verdict.
  returned: when it watched
  type: bool
reason:
  description: One sentence with the numbers that decided.
  returned: when it watched
  type: str
  sample: 'canary: 21 of 104 requests failed (20.19 %) in the last 2.0 s, limit 0.5 %'
conditions:
  description: What each condition says at the end.
  returned: when it watched
  type: list
  elements: dict
  sample:
    - {name: errors, verdict: fail, reason: '...', value: 0.2019, limit: 0.005, n: 104, required: true}
arms:
  description: What each arm did in the whole stage, as the source V(router) counts it.
  returned: when it watched
  type: dict
  sample:
    canary: {requests: 104, errors: 21, error_ratio: 0.2019, p50_ms: 20.0, p95_ms: 84.0, p99_ms: 120.0}
observed_bp:
  description: The shares that the requests of the stage show, in basis points.
  returned: when it watched
  type: dict
  sample: {blue: 9495, canary: 505}
approval:
  description: What a person was asked and said, with C(question), C(answer) (V(go), V(stop) or none), C(by), C(reason), C(via), C(seconds).
  returned: when it watched
  type: dict
plan:
  description: What each V(sequential) condition can find in this bake at the traffic that was seen, one sentence for each.
  returned: when it watched
  type: list
  elements: str
analysis_state:
  description: What the V(sequential) conditions know, for O(analysis_state) of the rollout's next stage. A kilobyte or two a condition.
  returned: when it watched
  type: dict
samples:
  description: Polls of the source that sets the pace.
  returned: when it watched
  type: int
duration:
  description: Seconds from the beginning to the end of the watch.
  returned: when it watched
  type: float
extensions:
  description: How often the stage was extended.
  returned: when it watched
  type: int
notes:
  description: What did not work on the way, or should be known besides.
  returned: when it watched
  type: list
  elements: str
rolled_back:
  description: Whether all traffic was returned, and read back from the routers.
  returned: when it watched
  type: bool
rollback:
  description: The way back, when there was one.
  returned: when it watched
  type: dict
  contains:
    seconds:
      description: Time from the decision until every endpoint had answered.
      type: float
    to:
      description: The arm that has all of the traffic now.
      type: str
    complete:
      description: Whether all endpoints were returned.
      type: bool
    endpoints:
      description: For each endpoint C(endpoint), C(ok), C(error), C(to) and C(seconds).
      type: list
      elements: dict
stopped_by:
  description: The signal that ended the watch.
  returned: when it watched
  type: str
"""

import asyncio
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils._gate import ARGUMENT_SPEC, read_gate
from ansible_collections.progressive.delivery.plugins.module_utils._journal import Journal
from ansible_collections.progressive.delivery.plugins.module_utils._watch import watch


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    # The clock that leases count with is that of the host they were given on.
    for lease in module.params['leases']:
        lease['at'] = time.monotonic()
    journal = Journal(None, module.params['rollout'])
    try:
        gate = read_gate(module.params)
        if module.check_mode:
            module.exit_json(changed=False, msg=gate.intent, passed=None, verdict=None)
        result = asyncio.run(watch(gate, journal, lambda progress: None, lambda sentence: None))
    except DeliveryError as exc:
        module.fail_json(msg=str(exc))
    (module.fail_json if result.get('failed') else module.exit_json)(**result)


if __name__ == '__main__':
    main()

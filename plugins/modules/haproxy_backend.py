#!/usr/bin/python
# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_backend
short_description: Change servers of a HAProxy backend, on many HAProxy processes at once
version_added: 1.0.0
author:
  - progressive.delivery contributors (@progressive-delivery)
description:
  - Sets weight and administrative state of servers, adds and removes servers at run time, drains servers and waits until they are empty
    or up, over the runtime sockets of one or many HAProxy processes.
  - Every endpoint is read and every change is planned before the first change. An endpoint that does not answer, an unknown backend or
    server, or a weight that the balancing algorithm refuses ends the task with nothing changed.
  - Every change is read back from HAProxy and compared with what was asked for.
  - Waits look at the administrative and the operational state and at counts, never at the text of a status. A server that was just made
    ready counts as up only after its checks have passed.
  - HAProxy forgets states, weights and added servers when it is reloaded, unless it is configured with C(server-state-file).
  - A server in V(drain), or with weight 0, still receives the requests of persistent (sticky) clients. Only V(maint) keeps all away.
extends_documentation_fragment:
  - progressive.delivery.attributes.target
  - progressive.delivery.endpoints
attributes:
  check_mode:
    support: full
    description: Reads, checks and predicts; changes nothing and does not wait.
  diff_mode:
    support: full
    description: Shows admin state, weight and address of each server before and after.
  idempotent:
    support: full
    description: A second run changes nothing. Sessions that come and go are not a change.
  platform:
    support: full
    platforms: posix
    description: HAProxy 2.6 or later.
options:
  backend:
    description:
      - Name of the backend.
      - Exactly one of O(backend) and O(arm) is needed.
    type: str
  arm:
    description: Name of an arm of O(arms), in place of O(backend) and O(servers). Each endpoint may name its backend otherwise.
    type: str
  arms:
    description: The arms of the service, each with C(backend) and C(servers), as for M(progressive.delivery.traffic_weight).
    type: dict
  servers:
    description:
      - Names of the servers. All servers of the backend that are not backups when it is left out.
      - Names are needed for O(state=absent). With O(address) there is exactly one.
    type: list
    elements: str
  state:
    description:
      - V(present) changes servers, and adds one that is missing when O(address) is given. What is added is made ready unless O(admin)
        says otherwise.
      - V(absent) puts servers into maintenance and deletes them at run time. HAProxy refuses while one has connections; see O(wait).
    type: str
    choices: [present, absent]
    default: present
  admin:
    description:
      - Administrative state. It is left alone when this is left out.
      - V(ready) is normal operation. V(drain) takes no new clients, goes on with checks and with persistent clients. V(maint) takes
        nothing and stops checks.
    type: str
    choices: [ready, drain, maint]
  weight:
    description:
      - Weight from V(0) to V(256), or a percentage of the configured weight such as V(50%). It is left alone when this is left out, and
        does not change the administrative state.
      - Algorithms that are static (C(static-rr), hashes without C(hash-type consistent)) or ignore weights (C(first)) take only 0 and the
        configured weight; anything else is refused before the first change.
    type: str
  drain:
    description: Whether to drain servers that are ready and wait until they are empty before O(admin=maint) or O(state=absent).
    type: bool
    default: false
  address:
    description:
      - Address of the server to add, or the new address of one that exists, V(10.0.0.1:8080) or V([2001:db8::1]:8080).
      - HAProxy does not resolve names of servers that are added at run time.
    type: str
  server_options:
    description:
      - Keywords of a server that is added, such as C(check), C(inter), C(maxconn), C(weight), C(slowstart), C(ssl); the ones that
        C(add server) knows. Switches take V(true) or V(false). Those of an existing server are not compared.
      - HAProxy applies nothing of C(default-server) to added servers.
    type: dict
  wait:
    description: Whether to wait as O(wait_for) says after the change.
    type: bool
    default: false
  wait_for:
    description:
      - What to wait for. Used with O(wait=true).
      - V(auto) waits for V(empty) on the way out (O(admin=drain), O(admin=maint), O(weight=0), O(state=absent)) and for V(up) on the way
        in. It does not wait for what cannot come.
      - V(empty) is no session, no queued request and no connection in use. For servers that get new sessions it is an error.
      - V(up) is running with checks passed; a server without checks is up when it is ready. For servers that are not ready it is an error.
    type: str
    choices: [auto, empty, up]
    default: auto
  wait_timeout:
    description: How long to wait in all, in seconds or as V(90s), V(1m30s), V(2h).
    type: str
    default: 5m
  on_timeout:
    description:
      - What to do with servers that are not empty or up in time.
      - V(fail) ends the task with what was seen last. Nothing more is changed; the servers stay as they are then.
      - V(shutdown) ends the sessions that are left, after maintenance where that comes next. A server that does not come up is a failure.
      - V(keep) goes on with a warning and leaves the sessions alone. It cannot be used with O(state=absent).
    type: str
    choices: [fail, shutdown, keep]
    default: fail
  journal:
    description: Path of a journal on the control host to append to.
    type: path
  rollout:
    description: Id of the rollout, for the journal.
    type: str
  run_on:
    description: Who talks to the sockets. V(target) is for sockets that only the target host sees; it needs Python 3.9 or later there.
    type: str
    choices: [control, target]
    default: control
seealso:
  - module: progressive.delivery.haproxy_backend_info
  - module: progressive.delivery.traffic_weight
"""

EXAMPLES = r"""
- name: Halve the weight of two servers on both load balancers
  progressive.delivery.haproxy_backend:
    endpoints:
      - name: lb1
        socket: tcp://10.0.0.11:9999
      - name: lb2
        socket: tcp://10.0.0.12:9999
    backend: shop
    servers: [web1, web2]
    weight: 50%

- name: Drain a server, put it into maintenance when it is empty, cut what is left after ten minutes
  progressive.delivery.haproxy_backend:
    endpoints: "{{ delivery_endpoints }}"
    backend: shop
    servers: [web1]
    admin: maint
    drain: true
    wait_timeout: 10m
    on_timeout: shutdown

- name: Bring it back and wait until its checks have passed
  progressive.delivery.haproxy_backend:
    endpoints: "{{ delivery_endpoints }}"
    backend: shop
    servers: [web1]
    admin: ready
    wait: true
    wait_timeout: 1m

- name: Add a server at run time
  progressive.delivery.haproxy_backend:
    endpoints: "{{ delivery_endpoints }}"
    backend: shop
    servers: [web3]
    address: 10.0.0.33:8080
    server_options:
      check: true
      inter: 1s
      maxconn: 200
    weight: 100
    wait: true

- name: Remove it again without losing a request
  progressive.delivery.haproxy_backend:
    endpoints: "{{ delivery_endpoints }}"
    backend: shop
    servers: [web3]
    state: absent
    drain: true

- name: Take a whole arm out, on hosts whose socket only they see
  progressive.delivery.haproxy_backend:
    endpoints:
      - socket: unix:///run/haproxy/admin.sock
    backend: shop_canary
    admin: maint
    run_on: target
"""

RETURN = r"""
endpoints:
  description: What each endpoint showed last, in the order of the option. In check mode, what it is expected to show.
  returned: when the endpoints could be read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the endpoint.
      type: str
    backend:
      description: Name of the backend.
      type: str
    algorithm:
      description: Its balancing algorithm.
      type: str
    mode:
      description: V(http) or V(tcp).
      type: str
    usable:
      description: Servers that can be chosen for a new request, backups not counted.
      type: int
    changed:
      description: Whether servers of this endpoint were changed.
      type: bool
    absent:
      description: Names of the servers asked for that the backend does not have.
      type: list
      elements: str
    servers:
      description: The servers asked for.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the server.
          type: str
        address:
          description: Its address.
          type: str
        weight:
          description: The weight as set by users, in maintenance, too.
          type: int
        initial_weight:
          description: The configured weight.
          type: int
        effective_weight:
          description: The weight that the balancer works with now, lower during a slow start.
          type: int
        admin:
          description: V(ready), V(drain) or V(maint), inherited states included.
          type: str
        operational:
          description: V(stopped), V(starting), V(running) or V(stopping).
          type: str
        check:
          description:
            - V(none) without health checks, V(passed), V(failed), or V(pending) when the server counts as up and its last checks do not
              bear it out.
          type: str
        check_status:
          description: HAProxy's code of the last check, such as V(L7OK).
          type: str
        sessions:
          description: Sessions now.
          type: int
        queued:
          description: Requests that wait for this server.
          type: int
        connections:
          description: Connections in use.
          type: int
        idle_connections:
          description: Connections kept for reuse.
          type: int
        backup:
          description: Whether it is a backup.
          type: bool
        tracks:
          description: The server whose checks it follows, or an empty string.
          type: str
        up:
          description: Whether it runs and its checks have passed.
          type: bool
        usable:
          description: Whether it can be chosen for a new request.
          type: bool
        changed:
          description: Whether this server was changed.
          type: bool
        waited_s:
          description: Seconds that were waited for it.
          type: float
        timed_out:
          description: Whether a wait for it ended without what was waited for.
          type: bool
        shut_down:
          description: Whether its sessions were ended.
          type: bool
  sample:
    - name: lb1
      backend: shop
      algorithm: roundrobin
      mode: http
      usable: 1
      changed: true
      absent: []
      servers:
        - name: web1
          address: 10.0.0.31:8080
          weight: 100
          initial_weight: 100
          effective_weight: 0
          admin: maint
          operational: stopped
          check: none
          check_status: ''
          sessions: 0
          queued: 0
          connections: 0
          idle_connections: 0
          backup: false
          tracks: ''
          up: false
          usable: false
          changed: true
          waited_s: 1.532
          timed_out: false
          shut_down: false
duration_s:
  description: Seconds that the work took, waits included.
  returned: when the endpoints could be read
  type: float
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.progressive.delivery.plugins.module_utils._backend import CONSTRAINTS, SPEC, run_backend
from ansible_collections.progressive.delivery.plugins.module_utils._errors import DeliveryError


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, **CONSTRAINTS)
    try:
        result = run_backend(module.params, module.check_mode, module._diff)
    except DeliveryError as exc:
        module.fail_json(msg=str(exc))
    if result.pop('failed', False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == '__main__':
    main()

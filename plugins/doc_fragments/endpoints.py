# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options C(service), C(endpoints) and C(arms), which every plugin that speaks to routers takes."""

    DOCUMENTATION = r"""
options:
  endpoints:
    description:
      - The data planes that split the traffic, each by itself; a process of HAProxy, or a route of a Kubernetes cluster. All are
        addressed at once.
      - Routes need the Python package C(kubernetes) on the host that runs the task.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name in messages and results. Without it, the socket, or object and namespace of the route.
        type: str
      router:
        description:
          - V(haproxy_map) keeps the split in one entry of an HAProxy map that the frontend reads for each request. It is exact to
            0.01 % and ends by itself when its lease runs out.
          - V(haproxy_weights) sets the weights of servers of one backend, for configurations without such a map. The lease is kept by a
            watchdog process on the host that runs the task.
          - V(httproute) sets the weights of an HTTPRoute or GRPCRoute of the Gateway API.
          - V(weights) sets the weights of another kind of object that keeps them in a list, see O(endpoints[].kind).
          - V(virtualservice) sets the weights of rules of an Istio VirtualService. The gateways themselves end the split when its lease has
            run out, on a whole tenth of a second of their own clocks.
          - V(ingress_nginx) puts a canary Ingress beside the main one, for controllers that read the annotations of ingress-nginx, and
            takes it away again. There is one candidate at a time.
          - V(service_selector) sets the selector of a Service. Its only shares are nothing and everything.
          - V(replicas) scales the Deployments of arms behind one Service. Shares are as fine as the number of replicas allows,
            and they are of connections, not of requests.
          - A lease that the data plane does not keep itself is kept in the cluster, by a Lease and a Job.
        type: str
        choices: [haproxy_map, haproxy_weights, httproute, weights, virtualservice, ingress_nginx, service_selector, replicas]
        default: haproxy_map
      socket:
        description: The runtime socket of HAProxy, C(unix:///path) or C(tcp://host:port). It needs C(level admin).
        type: str
      map:
        description: Path of the map as the HAProxy configuration writes it. Required for V(haproxy_map).
        type: str
      file:
        description:
          - Where the map file lies for whoever runs the task. It is written too, so that a reload of HAProxy keeps the split.
          - The default is O(endpoints[].map) for a C(unix://) socket, and no file for a C(tcp://) one. An empty text keeps no file.
        type: str
      slots:
        description: For how many candidates the configuration has lines.
        type: int
        default: 1
      matches:
        description: The conditions of the C(acl pd_match) in the configuration. All lead to the same arm.
        type: list
        elements: dict
        suboptions:
          header:
            description: Name of a request header.
            type: str
          cookie:
            description: Name of a cookie.
            type: str
          value:
            description: The value that matches.
            type: str
            required: true
      sticky:
        description: Whether the configuration has the line that draws by the hash of a key, so that users keep their arm.
        type: bool
        default: false
      ring:
        description: Name of the ring that receives the frontend's log, from which latencies are read.
        type: str
      share:
        description: The part of all traffic that goes through this endpoint.
        type: raw
        default: 100%
      arms:
        description: Backend and servers of arms where this endpoint differs from the arms of the service.
        type: dict
      deadline:
        description: Seconds that one operation on this endpoint may take. The default is 2 for HAProxy and 10 for a route of a cluster.
        type: float
      tolerance_bp:
        description: For V(haproxy_weights) and V(replicas), by how many basis points a share may miss what was asked for.
        type: int
        default: 50
      state_dir:
        description:
          - For V(haproxy_weights), the directory on the host that runs the task in which owner and lease are kept.
          - The default is C(~/.local/state/progressive.delivery/weights).
        type: path
      kubeconfig:
        description:
          - File that says where the cluster is and who asks. Without it, and without O(endpoints[].context), what C(KUBECONFIG) names,
            C(~/.kube/config), or the cluster in which the task itself runs.
        type: path
      context:
        description: The context of O(endpoints[].kubeconfig) to use. Without it, the current one.
        type: str
      namespace:
        description: Namespace of the route and of the arms' Services. Without it, C(default).
        type: str
      object:
        description:
          - Name of the route; for V(ingress_nginx) of the main Ingress, for V(service_selector) and V(replicas) of the Service.
          - Required for every router of Kubernetes.
        type: str
      kind:
        description:
          - For V(httproute), V(HTTPRoute), which is the default, or V(GRPCRoute).
          - For V(weights), one of V(TraefikService), V(HTTPProxy), V(ApisixRoute), V(VirtualServer), V(TrafficSplit), V(Ingress).
          - V(Ingress) is one for the AWS load balancer controller, whose paths ask for an action by V(use-annotation).
        type: str
      rules:
        description:
          - Names, or positions from 0, of the rules of the route that split the traffic. Without them, all that lead to an arm.
        type: list
        elements: str
      port:
        description: Port of the arms' Services, for arms that name no C(port) themselves. Without it, the one that the route has.
        type: int
      probe:
        description:
          - Requests of our own by which the shares are shown (V(L3)); without it, a route of a cluster has no more than its controller
            says.
          - Some hundred requests are sent when V(L3) is asked for, and none else.
        type: dict
        suboptions:
          url:
            description: What to ask, through the data plane.
            type: str
            required: true
          header:
            description: The header of an answer that tells the arm.
            type: str
            required: true
          host:
            description: Host to ask for, where it is not the one of O(endpoints[].probe.url).
            type: str
          values:
            description: What the header has in the answers of an arm, by arm. Without it, the arm's name.
            type: dict
      lease_image:
        description: Image of the Job that keeps the lease where the data plane does not.
        type: str
      metrics:
        description:
          - How a gate counts the requests of the arms at a route of a cluster, from the data plane's own metrics. Without it, a gate has
            nothing but the state of the pods there, and needs another source for requests.
          - Latencies come in buckets. A limit on the edge of one is exact, between two edges it is an estimate. Envoy brings its buckets
            up to date every 5 s unless C(stats_flush_interval) says otherwise.
        type: dict
        suboptions:
          kind:
            description:
              - V(traefik) or V(envoy) (gateways of Istio and Contour too). V(none) says that another source counts these requests.
            type: str
            choices: [traefik, envoy, none]
            required: true
          urls:
            description:
              - Where the metrics of every process of the data plane are, such as V(http://10.0.0.7:15000). Without a path, the usual one.
              - Without it and O(endpoints[].metrics.pods), the same as O(endpoints[].admin).
            type: list
            elements: str
          pods:
            description: In place of URLs, the pods of the data plane. They are asked through the API server (right C(get pods/proxy)).
            type: dict
            suboptions:
              namespace:
                description: Where they run. Without it, where the route is.
                type: str
              labels:
                description: Their labels.
                type: dict
                required: true
              port:
                description: Their port with the metrics.
                type: int
                required: true
              path:
                description: The path of the metrics, where it is not the usual one.
                type: str
          names:
            description:
              - What the data plane calls the requests of an arm, as lists by arm, where that cannot be told from the route. For V(traefik)
                the label C(service), for V(envoy) the name of the cluster.
            type: dict
      root_namespace:
        description: For V(virtualservice), the root namespace of the mesh, where the EnvoyFilter for the lease goes. Without it,
          C(istio-system).
        type: str
      destination_rule:
        description: For V(virtualservice), the DestinationRule that has the subsets of the arms. Without it, the name of their host.
        type: str
      mirror:
        description:
          - For V(httproute), whether the controller of the route copies the share of requests that a C(RequestMirror) asks for. Without it,
            that is known of some controllers, and of the others it is not assumed.
        type: bool
      admin:
        description:
          - URLs of the administration of every process of the data plane, such as V(http://10.0.0.7:15000) of an Envoy gateway of Istio
            or that of Traefik's API. With them C(verify=L2) waits until all of them have a split.
          - For V(virtualservice) and V(ingress_nginx).
        type: list
        elements: str
"""

    ARMS = r"""
options:
  service:
    description: Name of the service; for C(haproxy_map) the key of its entry in the map.
    type: str
    required: true
  arms:
    description:
      - The arms of the service by name, in a fixed order. Each has C(backend), by default the name of the arm, and may have C(servers),
        by default all of the backend that are not backups.
    type: dict
    required: true
"""

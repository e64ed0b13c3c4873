# Copyright (c) 2026, progressive.delivery contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils._errors import BadInput, Unsupported
from ansible_collections.progressive.delivery.plugins.module_utils._routers.endpoint import parse_arms, parse_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils._routers.kube_selector import ServiceSelectorCodec
from ansible_collections.progressive.delivery.plugins.module_utils._split import TOTAL, Match, Split, all_to

ARMS = {'blue': {'labels': {'version': 'v1', 'track': 'a'}}, 'green': {'labels': {'version': 'v2', 'track': 'b'}}}


def codec(arms=None):
    endpoint, = parse_endpoints([{'router': 'service_selector', 'object': 'shop', 'namespace': 'prod'}])
    return ServiceSelectorCodec(endpoint, 'shop', parse_arms(arms or ARMS, endpoint))


def service(**spec):
    return {'service': {'metadata': {'name': 'shop'}, 'spec': {'ports': [{'port': 80}], 'selector': {
        'app': 'shop', 'version': 'v1', 'track': 'a'}, **spec}}}


def test_one_write_selects_the_other_pods():
    one = codec()
    assert one.decode(service()).weights == {'blue': TOTAL}
    after = one.encode(service(), all_to('green'))
    assert after == service(selector={'app': 'shop', 'version': 'v2', 'track': 'b'})
    assert one.decode(after).weights == {'green': TOTAL}
    assert one.encode(after, all_to('blue')) == service()
    assert one.encode(service(), all_to('blue')) == {}


def test_pods_of_an_arm_are_those_that_the_service_would_select():
    assert codec().instances(service())['green'].labels == {'app': 'shop', 'version': 'v2', 'track': 'b'}


def test_a_share_is_nothing_or_everything():
    for split in (Split((('green', 1), ('blue', 9999))), Split((('blue', TOTAL),), (Match('header', 'a', 'b', 'green'),))):
        with pytest.raises(Unsupported, match='selects one arm or another'):
            codec().encode(service(), split)


def test_a_selector_of_nobodys_is_unknown():
    seen = codec().decode(service(selector={'app': 'shop', 'version': 'v9', 'track': 'a'}))
    assert not seen.weights and seen.unknown == ('app=shop,track=a,version=v9',)
    assert codec().encode(service(selector={'app': 'shop'}), all_to('green'))['service']['spec']['selector']['version'] == 'v2'


@pytest.mark.parametrize('spec, sentence', [
    ({'selector': None}, 'selects no pods: it has no selector'),
    ({'selector': None, 'type': 'ExternalName', 'externalName': 'a.example'}, 'it has the external name "a.example"')])
def test_a_service_that_selects_no_pods_is_a_problem(spec, sentence):
    assert sentence in codec().decode(service(**spec)).problems[0]


@pytest.mark.parametrize('arms, sentence', [
    ({'a': {}}, 'are not Kubernetes labels'), ({'a': {'labels': {'x': 'a b'}}}, 'are not Kubernetes labels'),
    ({'a': {'labels': {'x': '1'}}, 'b': {'labels': {'y': '1'}}}, 'have different labels'),
    ({'a': {'labels': {'x': '1'}}, 'b': {'labels': {'x': '1'}}}, 'have the same labels')])
def test_bad_arms(arms, sentence):
    with pytest.raises(BadInput, match=sentence):
        codec(arms)

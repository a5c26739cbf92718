"""Lists, sets, changes and deletes a limit with the client that openapi-python-client made. The argument is the API's URL."""

import sys

from balancer_client import Client
from balancer_client.api.limits import delete_limit, get_limit, list_limits, put_limit
from balancer_client.api.the_five_fixed_calls import create_fixed, delete_fixed
from balancer_client.models import LimitTerms, NewBucket, NumbersOfClient

client = Client(base_url=sys.argv[1])
CLIENT = "10.0.0.0/8"


def listed():
    answer = list_limits.sync_detailed(client=client)
    assert answer.status_code == 200, answer
    return [limit.client_id for limit in answer.parsed.limits]


def put(amount, **conditions):
    terms = LimitTerms(buckets=[NewBucket(name="day", amount=amount, per="1d", capacity=amount)])
    return put_limit.sync_detailed(CLIENT, client=client, body=terms, **conditions)


assert listed() == []
made = put(10)
assert made.status_code == 201 and made.parsed.client_id == CLIENT, made
assert listed() == [CLIENT]

tag = made.headers["ETag"]
changed = put(20, if_match=tag)
assert changed.status_code == 200 and changed.parsed.buckets[0].capacity == 20, changed
late = put(30, if_match=tag)
assert late.status_code == 412 and late.parsed.title == "Precondition Failed", late
known = get_limit.sync_detailed(CLIENT, client=client, if_none_match=changed.headers["ETag"])
assert known.status_code == 304, known

gone = delete_limit.sync_detailed(CLIENT, client=client, if_match="*")
assert gone.status_code == 204, gone
assert listed() == []

numbers = NumbersOfClient(client_id="10.0.0.7", capacity=10, rate_per_sec=1)
assert create_fixed.sync_detailed(client=client, body=numbers).status_code == 201
assert listed() == ["10.0.0.7"]
assert delete_fixed.sync_detailed(client=client, client_id="10.0.0.7").status_code == 204

"""What a valid request needs beyond its schema. Requests that are meant to be wrong stay as they are."""

import ipaddress
from urllib.parse import quote, unquote

import requests
import schemathesis
from hypothesis import strategies

# A limit may only name a plan that is there.
PLAN = {"buckets": [{"name": "day", "amount": 10, "per": "1d"}]}

# Schemathesis makes fields of letters and digits alone, unless it knows how their format is made.
TAGS = strategies.from_regex(r'\A(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)\Z')
schemathesis.openapi.format("entity-tags", TAGS)


def is_range(text):
    try:
        return "/" in text and ipaddress.ip_network(text, strict=False).num_addresses > 1
    except ValueError:
        return False


def cut(text, most):
    """Lengths in the description are in characters, and the bounds are in bytes."""
    return text.encode("utf-8", "ignore")[:most].decode("utf-8", "ignore")


def buckets_of(body):
    """Those beside one another have different names."""
    seen = set()
    for bucket in body.get("buckets") or []:
        while bucket["name"] in seen:
            bucket["name"] = f"{len(seen)}{bucket['name']}"[:64]
        seen.add(bucket["name"])


def limit_of(body, named, base):
    if named is not None:
        # The target names the client; the body may repeat it, and nothing else.
        body.pop("key", None)
        if "client_id" in body:
            body["client_id"] = named
    elif "client_id" in body:
        body["client_id"] = cut(body["client_id"], 256)
    buckets_of(body)
    if body.get("shared") and not is_range(named or body.get("client_id", "")):
        body["shared"] = False
    if body.get("plan") is not None:
        body["plan"] = "pro"
        requests.put(f"{base}/v1/plan?name=pro", json=PLAN, timeout=10).raise_for_status()


BOUNDS = {"id": 256, "client_id": 256, "prefix": 256, "name": 64, "plan": 64}


def parameters_of(case):
    """The texts in the target, cut to their bounds. Those in the path stand there encoded."""
    texts = {}
    for place, decode, encode in ((case.path_parameters, unquote, quote), (case.query, str, str)):
        for name, most in BOUNDS.items():
            if place and isinstance(place.get(name), str):
                text = decode(place[name])
                texts[name] = cut(text, most)
                if texts[name] != text:
                    place[name] = encode(texts[name])
    return texts


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    texts, body, path = parameters_of(case), case.body, case.path
    base = (case.operation.base_url or "").rstrip("/")
    if not isinstance(body, dict):
        return
    if path in ("/v1/batch", "/v1/import"):
        for limit in body.get("operations", []) + body.get("limits", []):
            limit_of(limit, None, base)
    elif path.startswith("/v1/limit"):
        limit_of(body, texts.get("id", texts.get("client_id")), base)
    elif path.startswith("/v1/plan"):
        if isinstance(body.get("name"), str):
            body["name"] = texts.get("name", cut(body["name"], 64))
        buckets_of(body)

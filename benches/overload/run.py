"""Runs the drills that benches/overload.sh describes. Standard library only."""

import json
import os
import subprocess
import sys
import time

from proxies import Backends, end_all, start_balancer, start_haproxy, start_nginx

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = [row for row in os.environ.get("ROWS", "").split(",") if row]
SECONDS = float(os.environ.get("SECONDS_EACH", "20"))
PROXIES = os.environ.get("PROXIES", "fair,fifo,haproxy,nginx").split(",")
if "fair" not in PROXIES:
    sys.exit("PROXIES: fair must be among them")
WARM = 5.0

# What three backends of four workers can answer in a second, when each answer takes 50 ms.
PLACES, MS = 4, 50
CAPACITY = 3 * PLACES * 1000 / MS
# The same for the measured bound.
WORKERS = 8
AUTO_CAPACITY = 3 * WORKERS * 1000 / MS

failed = []


def holds(what, is_so):
    print(f"  {'holds' if is_so else 'FAILS'}: {what}", flush=True)
    if not is_so:
        failed.append(what)


def source(group, client, rate, ms=MS, hold_s=0):
    target = f"/?ms={ms}" + (f"&hold={hold_s}" if hold_s else "")
    return {"group": group, "client": client, "rate": rate, "target": target}


def modest():
    return crowd_of(20 * 3.0, "modest")


def crowd_of(rate, group="all", **more):
    """That many requests a second, of twenty clients."""
    return [source(group, f"192.0.2.{number}", rate / 20, **more) for number in range(1, 21)]


def run(port, *crowds, seconds=None, meanwhile=None, warm=WARM):
    """Each crowd in a process of its own; what became of the requests of each group."""
    seconds = SECONDS if seconds is None else seconds
    begin = time.monotonic() + 0.5
    clients = []
    for number, sources in enumerate(crowds):
        plan = {"port": port, "begin": begin, "count_from": warm, "seconds": seconds, "seed": number, "sources": sources}
        process = subprocess.Popen([sys.executable, os.path.join(HERE, "client.py")], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(json.dumps(plan))
        process.stdin.close()
        clients.append(process)
    if meanwhile:
        meanwhile(begin)
    told = {}
    for process in clients:
        told.update(json.loads(process.stdout.read()))
        if process.wait():
            sys.exit("a client failed")
    return told


def part(group):
    return group.get("good", 0) / max(group["asked"], 1)


def shown(name, told):
    rows = ", ".join(
        f"{group}: {100 * part(of):.1f} % of {of['asked']} in time"
        + "".join(f", {count} {what}" for what, count in of.items() if what not in ("asked", "good"))
        for group, of in told.items())
    print(f"  {name:9} {rows}", flush=True)


def in_front_of_all(crowds, places=PLACES):
    """The same crowds in front of each proxy."""
    starts = {
        "fair": lambda backends: start_balancer(backends, places, "fair"),
        "fifo": lambda backends: start_balancer(backends, places, "fifo"),
        "haproxy": lambda backends: start_haproxy(backends, places),
        "nginx": lambda backends: start_nginx(backends, places),
    }
    results = {}
    for name in PROXIES:
        with Backends(places) as backends, starts[name](backends) as proxy:
            results[name] = run(proxy.port, *crowds)
            shown(name, results[name])
    return results


def good(told):
    return sum(group.get("good", 0) for group in told.values())


def balanced(crowds, limits=None, **more):
    with Backends(PLACES) as backends, start_balancer(backends, PLACES, "fair", limits=limits) as proxy:
        told = run(proxy.port, *crowds, **more)
        shown("fair", told)
        return told


def at_least(least, results, group="modest"):
    holds(f"{group} answered in time: {100 * least:.0f} % at least", part(results["fair"][group]) >= least)


def more_than(times, other, results):
    """Where the other one was asked for."""
    if other in results:
        ours, theirs = (part(results[name]["modest"]) for name in ("fair", other))
        holds(f"{times} times as many as with {other}", ours >= times * theirs)


def greedy():
    print("\none client asks for ten times what there is, beside 20 that ask for 3 a second each")
    with Backends(PLACES) as backends, start_balancer(backends, PLACES, "fair") as proxy:
        alone = run(proxy.port, crowd_of(CAPACITY, "full load"))
        shown("nobody", alone)
    results = in_front_of_all([modest(), [source("greedy", "198.51.100.1", 10 * CAPACITY)]])
    at_least(0.97, results)
    more_than(5, "fifo", results)
    more_than(5, "haproxy", results)
    holds("all answers in time: 90 % of those without it", good(results["fair"]) >= 0.9 * good(alone))


def dear():
    print("\none client's requests take 20 times as long, and ask for ten times what there is")
    results = in_front_of_all([modest(), [source("dear", "198.51.100.1", 10 * CAPACITY / 20, 20 * MS)]])
    at_least(0.9, results)


def split():
    print("\nthe greedy client comes under 50 names")
    crowd = [source("split", f"198.51.100.{number}", 10 * CAPACITY / 50) for number in range(1, 51)]
    results = in_front_of_all([modest(), crowd])
    at_least(0.7, results)
    more_than(10, "fifo", results)


def weights():
    print("\nthree clients of weight 1, 2 and 4 ask for twice what there is each")
    limits = [{"client_id": f"192.0.2.{weight}", "weight": weight} for weight in (1, 2, 4)]
    crowds = [[source(f"weight {weight}", f"192.0.2.{weight}", 2 * CAPACITY)] for weight in (1, 2, 4)]
    told = balanced(crowds, limits)
    of = {weight: told[f"weight {weight}"].get("good", 0) for weight in (1, 2, 4)}
    for weight, count in of.items():
        due = weight / 7 * sum(of.values())
        holds(f"weight {weight} has {count / max(due, 1):.2f} of its part: within 15 %", abs(count / max(due, 1) - 1) <= 0.15)


def priorities():
    print("\ncritical, normal and background clients ask for 0.6 of what there is each")
    names = ("critical", "normal", "background")
    limits, crowd = [], []
    for level, name in enumerate(names):
        for number in range(1, 21):
            client = f"192.0.{level}.{number}"
            limits.append({"client_id": client, "priority": name})
            crowd.append(source(name, client, 0.6 * CAPACITY / 20))
    told = balanced([crowd], limits)
    holds("critical: 97 % at least", part(told["critical"]) >= 0.97)
    holds("background: 2 % at least", part(told["background"]) >= 0.02)


# ------------------------------------------------------------------ the measured bound

BOUNDS = {"none": None, "4": 4, "8": 8, "16": 16, "32": 32, "auto": "auto"}


def bounded(name, crowds, workers=WORKERS, **more):
    with Backends(workers) as backends, start_balancer(backends, BOUNDS[name], "fair") as proxy:
        highest = [0.0]

        def watch(begin):
            until = begin + WARM + more.get("seconds", SECONDS)
            while time.monotonic() < until:
                highest[0] = max(highest[0], *proxy.bounds())
                time.sleep(0.5)

        told = run(proxy.port, *crowds, meanwhile=watch if name == "auto" else None, **more)
        shown(name, told)
        return told, highest[0]


def over():
    print("\ntwice what there is, for a minute: the measured bound beside numbers and none")
    results = {name: good(bounded(name, [crowd_of(2 * AUTO_CAPACITY)], seconds=60)[0]) for name in BOUNDS}
    best = max(count for name, count in results.items() if name not in ("auto", "none"))
    holds(f"auto has {results['auto'] / best:.2f} of the best number: 0.93 at least", results["auto"] >= 0.93 * best)
    holds(f"auto has {results['auto'] / max(results['none'], 1):.1f} times as many as none: 3 at least",
          results["auto"] >= 3 * results["none"])


def halved():
    print("\nhalf of the workers go, and come back")
    with Backends(WORKERS) as backends, start_balancer(backends, "auto", "fair") as proxy:
        seen = []

        def watch(begin):
            for at, workers in ((0, WORKERS), (30, WORKERS // 2), (60, WORKERS)):
                while time.monotonic() < begin + at:
                    time.sleep(0.1)
                backends.workers(workers)
                while time.monotonic() < begin + at + 30:
                    seen.append((time.monotonic() - begin, sum(proxy.bounds()) / 3))
                    time.sleep(0.5)

        told = run(proxy.port, crowd_of(2 * AUTO_CAPACITY), seconds=85, meanwhile=watch)
        shown("auto", told)
    mean = lambda start, end: sum(b for at, b in seen if start <= at < end) / max(sum(start <= at < end for at, _ in seen), 1)
    before, low, back = mean(20, 30), mean(45, 60), mean(75, 90)
    print(f"  mean bound: {before:.1f} before, {low:.1f} from 15 s after, {back:.1f} from 15 s after they came back")
    holds("lower within 15 s", low < 0.8 * before)
    holds("back within 15 s", back > 0.8 * before and back > low)


def beside(what, extra):
    load = crowd_of(0.7 * AUTO_CAPACITY, "short")
    results = {name: bounded(name, [load, extra])[0] for name in ("none", "auto")}
    holds(f"short answers beside {what}: 0.97 of those with none",
          results["auto"]["short"].get("good", 0) >= 0.97 * results["none"]["short"].get("good", 0))


def polls():
    print("\n300 long polls of 8 s beside 0.7 of what there is")
    clients = range(1, 101)
    beside("long polls", [source("polls", f"203.0.113.{number}", 300 / 8 / len(clients), 1, 8) for number in clients])


def slow_url():
    print("\na fifth of the requests waits a second for something else, at 0.7 of what there is")
    beside("a slow URL", crowd_of(0.7 * AUTO_CAPACITY / 5, "slow", hold_s=1))


def seldom():
    print("\nfive answers a second: too few to measure")
    _, highest = bounded("auto", [crowd_of(2 * 3 * 5, ms=WORKERS * 1000 / 5)], seconds=60)
    holds(f"never above the start of 16: {highest:.0f}", highest <= 16)


ALL = {row.__name__: row for row in (greedy, dear, split, weights, priorities, over, halved, polls, slow_url, seldom)}

try:
    for name in ROWS or ALL:
        ALL[name]()
finally:
    end_all()
print("\nall of it holds" if not failed else "\nFAILED:\n  " + "\n  ".join(failed))
sys.exit(1 if failed else 0)

#!/usr/bin/env bash
# Tries the chart without a cluster: renders it, judges every object by Kubernetes' own schemas, reads the configuration
# in it with Balancer, and holds it to deploy/kubernetes/balancer.yaml, which it must be the same as with its defaults.
#
#   BIN=target/debug/balancer deploy/try-chart.sh
#
# Needs go with sprig and yaml (Debian: golang-go golang-github-masterminds-sprig-dev golang-gopkg-yaml.v3-dev), and
# python3, into whose environment it installs kubernetes-validate. BIN names a Balancer instead of building one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d "${TMPDIR:-/tmp}/balancer-chart.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
venv=${TMPDIR:-/tmp}/balancer-ci-kubernetes
if ! "$venv/bin/python" -c 'import kubernetes_validate, yaml' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 PyYAML==6.0.3
fi
if [ -z "${BIN:-}" ]; then
  cargo build --quiet --locked --bin balancer
  BIN=${CARGO_TARGET_DIR:-target}/debug/balancer
fi
GO111MODULE=off GOPATH=/usr/share/gocode go build -o "$scratch/render" deploy/helm/render.go
render() { "$scratch/render" deploy/helm/balancer "$@"; }

render balancer > "$scratch/default.yaml"
render other 'service.type=ClusterIP' 'config.admin.listen="[::]:9001"' 'config.listen="[::]:8081"' 'config.admin.metrics_without_token=false' > "$scratch/other.yaml"
# The file that docs/install.md says to write.
awk '/<!-- run: values.yaml -->/ { on = 1; next } on && /^    / { seen = 1; print substr($0, 5) } seen && !/^    / { exit }' docs/install.md > "$scratch/values.yaml"
render balancer "$scratch/values.yaml" > "$scratch/page.yaml"
grep -q 'image: "registry.example.com/balancer:0.1.0"' "$scratch/page.yaml"
grep -q 'http://shop-headless:3000' "$scratch/page.yaml"
if render balancer 'config.admin.listen=' > /dev/null 2> "$scratch/said"; then echo "the API may share the public port"; exit 1; fi
grep -q 'config.admin.listen' "$scratch/said"

for file in default other page; do
  "$venv/bin/python" - "$scratch/$file.yaml" "$scratch/$file.json" <<'PY'
import sys, yaml, kubernetes_validate
objects = [one for one in yaml.safe_load_all(open(sys.argv[1])) if one]
for one in objects:
    kubernetes_validate.validate(one, "1.33", strict=True)
[config] = [one["data"]["config.json"] for one in objects if one["kind"] == "ConfigMap"]
open(sys.argv[2], "w").write(config)
print(f"{sys.argv[1].rsplit('/', 1)[1]}: {len(objects)} objects are what Kubernetes takes")
PY
  BALANCER_ADMIN_TOKEN=a-token-for-the-check "$BIN" check --config "$scratch/$file.json" > /dev/null
done
"$venv/bin/python" - "$scratch/default.yaml" deploy/kubernetes/balancer.yaml <<'PY'
import json, sys, yaml
def objects(path):
    found = {}
    for one in filter(None, yaml.safe_load_all(open(path))):
        if one["kind"] == "ConfigMap":
            one["data"]["config.json"] = json.loads(one["data"]["config.json"])
        if one["kind"] == "Deployment":
            one["spec"]["template"]["metadata"]["annotations"].pop("checksum/config", None)
        found[one["kind"], one["metadata"]["name"]] = one
    return found
chart, manifest = map(objects, sys.argv[1:])
for name in sorted(chart.keys() | manifest.keys()):
    if chart.get(name) != manifest.get(name):
        sys.exit(f"{name} differs:\n{json.dumps(chart.get(name), indent=1)}\n{json.dumps(manifest.get(name), indent=1)}")
print("the chart's defaults are deploy/kubernetes/balancer.yaml")
PY

#!/usr/bin/env bash
# make.sh COMMIT: have the Remit of that commit do what objects.yaml asks for, and keep its state directory as it is then.
# Needs kubectl, and this checkout's .venv for the libraries.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); root=$here/../..
work=$(mktemp -d); up=
trap 'kill -9 $up 2>/dev/null || true; rm -rf "$work"' EXIT
git -C "$root" archive "$1" operator | tar -x -C "$work"
remit() { PYTHONPATH=$work/operator "$root/.venv/bin/python" -m remit.cli "$@"; }

mkdir -p /var/tmp/remit-last-version/v1
echo one >/var/tmp/remit-last-version/v1/words
PYTHONPATH=$work/operator "$root/.venv/bin/python" -m remit.cli up --state-dir "$work/state" --port 0 --docker-host off \
  >"$work/log" 2>&1 &
up=$!
until grep -q 'Ctrl-C stops' "$work/log"; do kill -0 $up; sleep 0.2; done
export KUBECONFIG=$work/state/kubeconfig
kubectl apply -f "$here/objects.yaml"
kubectl wait --for=condition=Finished et/hello et/denied et/keeps --timeout=60s
remit run --from-schedule nightly --wait
kubectl wait --for=condition=Healthy deployments.remit.dev/worker --timeout=60s
kubectl wait --for=jsonpath='{.status.phase}'=Running et/long et/retried --timeout=60s
until kubectl get cmdpol all -o 'jsonpath={.status.allowed}' | grep -qx 5; do sleep 0.2; done
kubectl get cmdpol,et,deployments.remit.dev -o wide
remit backup "$work/state.tar.gz" --state-dir "$work/state"
kubectl delete deployments.remit.dev/worker --timeout=60s  # its process would outlive the operator
kill -9 $up
gunzip "$work/state.tar.gz"
tar --delete -f "$work/state.tar" token tls kubeconfig  # a new token and new keys are made where there are none
xz -9e <"$work/state.tar" >"$here/state.tar.xz"

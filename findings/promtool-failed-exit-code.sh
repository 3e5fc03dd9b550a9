#!/usr/bin/env bash
# The exit code of promtool when it prints FAILED for a file of rules, or cannot find the rules that it is to test.
#
# Guess: not 0 in either case, so that a CI job that runs it stops.
# Seen with promtool 2.42.0 of Debian 12, and so by hand with 2.53.3 and 3.5.3: `check rules` prints `FAILED:` for an alert
# that is there twice and exits with 0, unless it is told `--lint-fatal`; Prometheus then fires it twice. `test rules`
# prints `SUCCESS` and exits with 0 if its `rule_files` match nothing, and also if it asks for an alert that exists nowhere
# without saying what that should be like, so that a test of a misspelt name tests nothing.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/promtool-failed-exit-code.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked

cat >twice.yml <<'RULES'
groups:
  - name: one
    rules:
      - {alert: Down, expr: up == 0}
      - {alert: Down, expr: up == 0}
RULES
cat >misspelt.yml <<'TEST'
rule_files: [twice.yml]
tests:
  - input_series: [{series: up, values: "0 0 0"}]
    alert_rule_test: [{eval_time: 1m, alertname: Dwon}]
TEST
cat >missing.yml <<'TEST'
rule_files: [nowhere.yml]
tests:
  - input_series: [{series: up, values: "0 0 0"}]
    alert_rule_test: [{eval_time: 1m, alertname: Down}]
TEST

seen=""
try() {
    local code=0
    unpacked/usr/bin/promtool "$@" >said 2>&1 || code=$?
    seen+="$(grep -oE 'FAILED|SUCCESS' said) $code; "
    echo "promtool $*: $(grep -oE 'FAILED|SUCCESS' said), exit code $code"
}
try check rules twice.yml
try check rules --lint-fatal twice.yml
try test rules misspelt.yml
try test rules missing.yml
if [ "$seen" != "FAILED 0; FAILED 3; SUCCESS 0; SUCCESS 0; " ]; then
    echo "This has changed." >&2
    exit 1
fi

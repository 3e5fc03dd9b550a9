#!/usr/bin/env bash
# Whether `promtool check config` refuses a job whose `scheme` is neither http nor https.
#
# Guess: it does, as it refuses a misspelt key and a duration without a unit.
# Seen with Prometheus 2.42.0 of Debian 12: it says SUCCESS and exits with 0, with --syntax-only and without. Prometheus
# starts with it, too; every scrape fails with `unsupported protocol scheme "gopher"`.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/promtool-unknown-scheme.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked

job() {
    printf 'scrape_configs:\n  - job_name: a\n    %s: %s\n    static_configs:\n      - targets: ["127.0.0.1:9"]\n' "$1" "$2" >"$1.yaml"
    unpacked/usr/bin/promtool check config $3 "$1.yaml" >/dev/null 2>&1 && echo accepted || echo refused
}
key=$(job shceme https "")
interval=$(job scrape_interval 5 "")
scheme=$(job scheme gopher "")
syntax=$(job scheme gopher --syntax-only)
echo "a misspelt key is $key, an interval without a unit $interval, scheme: gopher is $scheme, also with --syntax-only: $syntax"
[ "$key $interval $scheme $syntax" = "refused refused accepted accepted" ] || { echo "This has changed."; exit 1; }

#!/usr/bin/env bash
# What certbot says and does when the deploy hook fails that should put a renewed certificate into use, as when `nginx -t`
# fails for another site at that moment.
#
# Guess: the run fails, so that certbot.service does and somebody looks; and the hook is tried again at the next run, twelve
# hours later.
# Seen with certbot 5.8.0: one line on standard error, then `Congratulations, all renewals succeeded`, exit code 0, of the
# first certificate as of a renewal. The next run finds nothing due and does not call the hook: it is called with the next
# renewal, two months later, a month after the certificate that nginx still shows has expired.
# Needs Debian 12, whose pebble it unpacks. Run by hand: bash findings/certbot-failed-deploy-hook.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || { kill "$pid"; wait "$pid" || true; }; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'pebble=2.4.0*' 2>/dev/null
dpkg-deb -x pebble_*.deb unpacked
python3 -m venv venv
venv/bin/pip -qq --disable-pip-version-check install certbot==5.8.0

port() { python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'; }
directory=$(port)
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=pebble -addext subjectAltName=IP:127.0.0.1 \
    -keyout key -out certificate 2>/dev/null
cat >configuration <<JSON
{"pebble": {"listenAddress": "127.0.0.1:$directory", "managementListenAddress": "127.0.0.1:$(port)", "tlsPort": 1,
    "certificate": "certificate", "privateKey": "key", "httpPort": 1, "ocspResponderURL": ""}}
JSON
PEBBLE_VA_ALWAYS_VALID=1 PEBBLE_VA_NOSLEEP=1 timeout 200 unpacked/usr/bin/pebble -config configuration >log 2>&1 &
pid=$!
for _ in {1..100}; do ! curl -ks "https://127.0.0.1:$directory/dir" >answer || break; sleep 0.2; done

cat >hook <<'SH'
#!/bin/sh
echo called >>calls
exit 1
SH
chmod 755 hook
touch calls
export REQUESTS_CA_BUNDLE=$folder/certificate
certbot() {
    local code=0
    venv/bin/certbot "$@" --config-dir etc --work-dir var --logs-dir logs --non-interactive --http-01-port "$(port)" \
        --server "https://127.0.0.1:$directory/dir" >said 2>&1 || code=$?
    echo "exit code $code, hook called $(wc -l <calls) times, $(grep -c Congratulations said || true) Congratulations"
}
{
    certbot certonly --standalone --agree-tos --email a@example.com --domain a.example --deploy-hook "$folder/hook"
    certbot renew --force-renewal --no-random-sleep-on-renew
    certbot renew --no-random-sleep-on-renew
} >seen
cat seen
cat >expected <<'EXPECTED'
exit code 0, hook called 1 times, 0 Congratulations
exit code 0, hook called 2 times, 1 Congratulations
exit code 0, hook called 2 times, 0 Congratulations
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }

#!/bin/sh
# What `wsbundle deploy` does on a host, as root. ssh feeds it to `sh -s`, and every archive carries it for its own jobs.
#
# A connection can be lost at any moment, and nobody knows then how far a command came. So each verb can be repeated,
# and what takes long is a job: a unit of systemd that goes on by itself, with its output in a file that is followed.
#
#   ask NAME                                        what this host is, a line each
#   has NAME ARCHIVE SUMS                           whether this archive is there, undamaged
#   unpack NAME ARCHIVE FILE SHA256                 check what has arrived, and unpack it
#   show NAME FILE                                  a file, in base64
#   start NAME ARCHIVE JOB install|plan|back|rollback|uninstall [OPTION...]
#   follow NAME JOB BYTES                           its output from this byte on; ends with the exit code of the job
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin # the system's own python3 is the one that will run the service
umask 077                          # an archive holds the values under `env`
verb=$1 name=$2
shift 2
home=/usr/local/lib/wsbundle/$name # not below /opt/NAME, which is the installation's own, nor /var, often noexec
unit=wsbundle-deploy-$name.service
KEPT_JOBS=5
NEW=3           # the exit code of changes that are still to be made
BUSY=75 GONE=76 # exit codes that no job has

ask() {
    echo "wsbundle-host 1"
    echo "python=$(python3 -IBc 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null || true)"
    echo "machine=$(uname -m)"
    echo "libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)"
    echo "system=$(. /etc/os-release && echo "${ID-} ${VERSION_ID-}")"
    echo "init=$(cat /proc/1/comm)"
    echo "identity=$(cat /etc/machine-id /proc/sys/kernel/random/boot_id | sha256sum | cut -c 1-16)"
    echo "addresses=$(hostname -I 2>/dev/null || true)"
    echo "keys=$(sha256sum "/etc/$name/keys.json" 2>/dev/null | cut -c 1-16)"
    echo "generation=$(current_generation)"
    echo "archive=$(readlink "$home/current" || true)"
    last=$(last_deployment)
    echo "changed=${last:+$last $(stat -c %Y "$home/changed")}"
    echo "job=$(running)"
    echo "wsbundle-end"
}

# The job that is at work.
running() {
    if systemctl is-active --quiet "$unit"; then
        systemctl show --property=Description --value "$unit"
    fi
}

has() {
    cd "$home/$1" 2>/dev/null || exit 1
    [ "$(sha256sum <SHA256SUMS | cut -c 1-64)" = "$2" ] && sha256sum --check --quiet --strict SHA256SUMS >/dev/null 2>&1
}

unpack() {
    archive=$1 file=$home/$2 new=
    trap 'rm -rf "$file" $new' EXIT # also where the disk is full: the next try must find its room again
    if [ "$(sha256sum <"$file" | cut -c 1-64)" != "$3" ]; then
        echo "wsbundle: the archive did not arrive whole; nothing was changed" >&2
        exit 1
    fi
    new=$(mktemp -d "$home/incoming.XXXXXX")
    if ! said=$(tar xzf "$file" --no-same-owner -C "$new" 2>&1); then
        echo "wsbundle: nothing was changed, the archive cannot be unpacked; make room in $home, 300 MB:" \
            "$(echo "$said" | head -n 1)" >&2
        exit 1
    fi
    rm -rf "${home:?}/$archive"
    mv "$new/$archive" "$home/$archive"
    find "$home" -maxdepth 1 -name 'incoming.*' -mmin +60 -exec rm -rf {} + # of connections that were lost
}

show() {
    echo wsbundle-file
    base64 "$1"
}

start() {
    archive=$1 job=$2
    at_work=$(running)
    if [ -e "$home/jobs/$job/output" ] || [ "$at_work" = "$job" ]; then
        return 0 # by an earlier try, whose connection was lost
    fi
    if [ -n "$at_work" ]; then
        echo "wsbundle: another deployment is under way here; wait for its end" >&2
        exit $BUSY
    fi
    mkdir -p "$home/jobs/$job"
    # A login knows proxies from /etc/environment, and a unit does not. In a file, as they may have a password.
    (umask 077 && env | grep -i '^[a-z]*_proxy=' >"$home/jobs/$job/proxies") || true
    # KillMode: if the installer is killed, its guardian undoes what it has begun.
    systemd-run --quiet --collect --unit="$unit" --description="$job" --property=KillMode=process \
        --property="EnvironmentFile=-$home/jobs/$job/proxies" --setenv=HOME=/root \
        sh "$home/$archive/generator/deploy/host.sh" job "$name" "$@"
}

job() {
    archive=$1 job=$home/jobs/$2 work=$3
    shift 3
    exec >"$job/output" 2>&1 </dev/null
    code=1
    trap ended EXIT
    "$work" "$@" && code=0 || code=$?
}

ended() {
    tidy
    [ "$code" -lt 64 ] || code=1 # killed, or not started
    echo "$code" >"$job/result.new"
    mv "$job/result.new" "$job/result"
}

# $home/changed: what was deployed last, the generation that it has replaced (- if it has changed nothing, none if there
# was none), and the archive that was current before.
install() {
    deployment=$1 before=$(current_generation) previous=$(readlink "$home/current" || true)
    shift
    if [ "$(last_deployment)" != "$deployment" ]; then
        note "$deployment - -" || return 1
    fi
    adopt "$previous"
    sh "$home/$archive/install" "$@" || return $?
    if [ "$(current_generation)" != "$before" ] && grep -q " - -$" "$home/changed"; then
        note "$deployment ${before:-none} ${previous:-none}"
    fi
    make_current "$archive"
}

plan() {
    adopt "$(readlink "$home/current" || true)"
    sh "$home/$archive/install" plan "$@"
}

# Where a setting has changed, and not the code, the virtual environment need not be made again: it names its place in a
# few files. If it does not fit after all, `install` makes another.
adopt() {
    old=$home/$1 new=$home/$archive
    if [ ! -e "$old/.venv/ready" ] || [ -e "$new/.venv" ]; then
        return 0
    fi
    for file in requirements/generator.txt requirements/service.txt pyproject.toml generator/environment.py; do
        cmp -s "$old/$file" "$new/$file" || return 0
    done
    rm -rf "$new/.venv.new"
    cp -al "$old/.venv" "$new/.venv.new"
    (cd "$new/.venv.new" && grep -lsIF "$old" ready pyvenv.cfg bin/* lib/python*/site-packages/*.pth) |
        (cd "$new/.venv.new" && xargs -r sed -i "s|$old|$new|g") # a file of its own each, not that of the other
    mv "$new/.venv.new" "$new/.venv"
}

# What this deployment has changed, and nothing else.
back() {
    read -r deployment before previous <"$home/changed"
    if [ "$deployment" != "$1" ] || [ "$before" = - ]; then
        echo "Nothing to do: the last deployment has changed nothing here."
        return 0
    fi
    if [ "$before" = none ]; then
        echo "Nothing was installed here before, so it stays."
        return $NEW
    fi
    rollback "$before" || return $?
    rm "$home/changed"
    if [ -d "$home/$previous" ]; then
        make_current "$previous"
    fi
}

rollback() {
    "$home/$archive/.venv/bin/wsbundle" rollback -f "$home/$archive/deploy.yaml" "$@"
}

uninstall() {
    "$home/$archive/.venv/bin/wsbundle" uninstall -f "$home/$archive/deploy.yaml" "$@" || return $?
    rm -rf "${home:?}/$name-"* "$home/current" "$home/changed"
}

# Empty where another program has a `current` of its own in /opt/NAME: the installation says so.
current_generation() {
    basename "$(readlink "/opt/$name/current" || true)" | grep -x '[0-9]*' || true
}

# Empty where the file is damaged, as by a power failure or a full disk.
last_deployment() {
    grep -aoE '^[0-9a-f]{12} ' "$home/changed" 2>/dev/null | head -n 1 | tr -d ' '
}

note() {
    echo "$1" >"$home/changed.new" && mv "$home/changed.new" "$home/changed"
}

make_current() {
    ln -sfn "$1" "$home/current.new"
    mv -T "$home/current.new" "$home/current"
}

# Archives: the current one, the one before it, and the last that was tried.
tidy() {
    kept="$archive $(readlink "$home/current" || true) $(cut -d ' ' -f 3 "$home/changed" 2>/dev/null || true)"
    for directory in "$home/$name-"*; do
        case " $kept " in
        *" ${directory##*/} "*) ;;
        *) rm -rf "$directory" ;;
        esac
    done
    (cd "$home/jobs" && ls -1t | tail -n "+$((KEPT_JOBS + 1))" | xargs -r rm -rf)
}

follow() {
    id=$1 job=$home/jobs/$1 sent=$2 turn=0 ended=
    echo wsbundle-output # what a login shell has printed before is none
    while [ -z "$ended" ]; do
        # Looked at before the output: what was written before the end is printed, too.
        if [ -e "$job/result" ] || { [ $((turn % 20)) -eq 0 ] && [ "$(running)" != "$id" ]; }; then
            ended=yes
        fi
        size=$(wc -c <"$job/output" 2>/dev/null || echo 0)
        if [ "$size" -gt "$sent" ]; then
            tail -c "+$((sent + 1))" "$job/output" | head -c $((size - sent))
            sent=$size
        fi
        turn=$((turn + 1))
        [ -n "$ended" ] || sleep 0.1
    done
    exit "$(cat "$job/result" 2>/dev/null || echo $GONE)" # gone: the host was rebooted, say
}

"$verb" "$@"

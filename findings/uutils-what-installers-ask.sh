#!/usr/bin/env bash
# Whether five lines that hand-written installers have do the same with the coreutils in Rust, which are Ubuntu's since
# 25.10, as with GNU's: who owns a file, its mode, what a link leads to.
#
# Guess: they do. Same names, same options, and the project takes every difference from GNU for a bug.
# Seen with rust-coreutils 0.12.0 beside GNU coreutils of the same Debian:
# - `chown NAME: FILE` leaves the group as it is; GNU's takes the login group of NAME, so that a service may not read it;
# - `mkdir -m 2775` makes a directory without the set-group-ID bit, with exit code 0;
# - `install -D` makes the directories above by the umask, under 077 for root alone; GNU's always makes them with 755;
# - `mv -T FILE LINK` is refused if LINK leads to a directory; GNU's replaces the link. A link to a directory that is there
#   replaces another with both: the usual switch of `current` works;
# - `timeout -s KILL` exits with 124 when the time is up, GNU's with 137.
# Needs Debian forky, whose package it unpacks, and root. Run by hand: bash findings/uutils-what-installers-ask.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'rust-coreutils=0.12.0*' 2>/dev/null
dpkg-deb -x rust-coreutils_*.deb unpacked
rust=$PWD/unpacked/usr/lib/cargo/bin/coreutils
[[ $(chown --version) == *GNU* ]] || { echo "This needs GNU coreutils to compare with." >&2; exit 1; }

try() ( # with the programs of this directory first
    PATH=$1:$PATH
    mkdir "$2"
    cd "$2"
    umask 022
    touch file
    chown nobody: file
    echo "chown nobody: $(stat -c %U:%G file)"
    mkdir -m 2775 shared
    echo "mkdir -m 2775: $(stat -c %a shared)"
    (umask 077 && install -D -m 644 file above/it)
    echo "install -D under 077: $(stat -c %a above)"
    mkdir old new
    ln -s old link
    echo x >another
    mv -T another link 2>/dev/null && echo "mv -T: the link is replaced" || echo "mv -T: refused"
    ln -sfn old current
    ln -s new next
    mv -T next current
    echo "mv -T of a link: $(readlink current)"
    code=0
    { bash -c 'timeout -s KILL 1 sleep 60' || code=$?; } 2>/dev/null
    echo "timeout -s KILL: $code"
)
export -f try
bash -c 'try /usr/bin gnu' >gnu.seen
bash -c "try $rust uutils" >uutils.seen
paste -d '|' gnu.seen uutils.seen | sed 's/|/   |   /' >seen
cat seen
cat >expected <<'EXPECTED'
chown nobody: nobody:nogroup   |   chown nobody: nobody:root
mkdir -m 2775: 2775   |   mkdir -m 2775: 775
install -D under 077: 755   |   install -D under 077: 700
mv -T: the link is replaced   |   mv -T: refused
mv -T of a link: new   |   mv -T of a link: new
timeout -s KILL: 137   |   timeout -s KILL: 124
EXPECTED
cmp -s seen expected || { echo "This has changed." >&2; exit 1; }

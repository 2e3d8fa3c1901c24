# What the scripts of the booted hosts have in common. They run as root in a host of deb-rig.sh.
#
# Each assertion is one line of output, which begins with the host's name, and says what holds or what
# broke. What broke does not stop the script: the rest may tell why. Hosts speak with each other past
# the network by files in /rig/shared.
# shellcheck shell=bash

SHARED=$RIG_DIR/shared
BROKEN=$RIG_OUT/broken
# Files that outlive a reboot.
KEPT=$RIG_OUT
README=/usr/share/doc/distmsg/README.md
CONFIG=/etc/distmsg/config.toml
STATE=/var/lib/distmsg
SOCKET=/run/distmsg/socket

# named NAME: what this host is called from now on, and who is where.
named() {
    HOST=$1
    hostname "$HOST"
    echo "$HOST" >/etc/hostname
    grep -q attic /etc/hosts || printf '10.77.0.1 cellar\n10.77.0.2 attic\n' >>/etc/hosts
}

say() { printf '%-6s %4ds  %s\n' "$HOST" "$SECONDS" "$*"; }

# holds WHAT COMMAND...: the command succeeds.
holds() {
    local what=$1 out
    shift
    if out=$("$@" 2>&1); then
        say "ok: $what"
    else
        say "BROKEN: $what"
        printf '    %s\n' "'$*' says:" "${out:-nothing}" | head -n 20
        touch "$BROKEN"
        return 1
    fi
}

# equals WHAT EXPECTED ACTUAL
equals() {
    if [ "$2" = "$3" ]; then
        say "ok: $1"
    else
        say "BROKEN: $1: expected '$2', found '$3'"
        touch "$BROKEN"
        return 1
    fi
}

# contains WHAT PART TEXT
contains() {
    if [ -n "$2" ] && [[ $3 == *"$2"* ]]; then
        say "ok: $1"
    else
        say "BROKEN: $1: '$2' is not in:"
        printf '%s\n' "${3:-(nothing)}" | tail -n 15 | sed 's/^/    /'
        touch "$BROKEN"
        return 1
    fi
}

# until_true SECONDS COMMAND...: tries until it succeeds.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { "$@"; return; }
        sleep 0.1
    done
}

# within SECONDS WHAT COMMAND...: it holds before so much time has passed.
within() {
    local seconds=$1 what=$2
    shift 2
    holds "$what" until_true "$seconds" "$@"
}

# tell NAME [TEXT]: what other hosts wait for.
tell() { printf '%s' "${2:-}" >"$SHARED/.$1" && mv "$SHARED/.$1" "$SHARED/$1"; }

# told NAME SECONDS: waits for what another host tells, and prints it. A host that does not get that
# far leaves the rest without a meaning.
told() {
    local deadline=$((SECONDS + $2))
    until [ -e "$SHARED/$1" ]; do
        if [ -e "$SHARED/abandoned" ] || [ "$SECONDS" -ge "$deadline" ]; then
            say "BROKEN: the other host did not come to '$1'" >&2
            touch "$BROKEN"
            give_up
        fi
        sleep 0.1
    done
    cat "$SHARED/$1"
}

# give_up: what is not there makes the rest meaningless.
give_up() {
    touch "$SHARED/abandoned"
    say "giving up; the end of the journal:" >&2
    journalctl --no-pager -n 30 -o short-precise -u 'distmsg*' -u 'user@*' -t systemd >&2
    exit 1
}

# finish: the exit code of the whole script.
finish() {
    if [ -e "$BROKEN" ]; then
        journalctl --no-pager -n 60 -o short-precise -u 'distmsg*' >&2
        exit 1
    fi
    say "all holds"
    exit 0
}

# As the README has it, for root.
sudo() { "$@"; }

# in_the_book LINE: the README of the installed package has this line, word by word.
in_the_book() {
    grep -qxF -- "$1" "$README" && return
    say "BROKEN: the README does not have the line: $1" >&2
    touch "$BROKEN"
}

# book LINE: done as the README has it.
book() {
    in_the_book "$1"
    eval "$1"
}

# quietly COMMAND...: quiet unless it fails.
quietly() {
    if ! "$@" >"$RIG_OUT/quietly.log" 2>&1; then
        say "BROKEN: $*"
        sed 's/^/    /' "$RIG_OUT/quietly.log"
        touch "$BROKEN"
        return 1
    fi
}

# make_reachable: the configuration says what the README shows for that.
make_reachable() {
    local line key
    while read -r line; do
        key=${line%% *}
        [ "$HOST" = cellar ] || [ "$key" != advertise ] && in_the_book "$line"
        sed -i "s|^\(# \)\?$key = .*||" "$CONFIG"
        echo "$line" >>"$CONFIG"
    done <<-CONFIG
	listen = ["0.0.0.0:3000"]
	advertise = ["$HOST:3000"]
	network = "closed"
	CONFIG
}

# install_deb FILE
install_deb() {
    quietly apt-get install -y -q -o Dpkg::Options::=--force-confold "$1" || give_up
}

# of PROPERTY [UNIT]: what systemd knows of it.
of() { systemctl show --value -p "$1" "${2:-distmsg.service}"; }

# active: the service runs and is ready.
active() { [ "$(of ActiveState)/$(of SubState)" = active/running ]; }

# by_user NAME COMMAND: in a new login of this user.
by_user() {
    local uid
    uid=$(id -u "$1")
    runuser -u "$1" -- env -C "/home/$1" HOME="/home/$1" XDG_RUNTIME_DIR="/run/user/$uid" \
        PATH="/home/$1/.local/bin:$PATH" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus" \
        bash -c "$2"
}

# service_is_up: what an installed package brings, as systemd and the file system have it.
service_is_up() {
    within 20 "the service is active" active || give_up
    equals "the service is enabled" enabled "$(systemctl is-enabled distmsg.service)"
    equals "the socket unit is enabled" enabled "$(systemctl is-enabled distmsg.socket)"
    equals "the socket has its owner and mode" 'root:distmsg 660 socket' \
        "$(stat -c '%U:%G %a %F' "$SOCKET")"
    equals "the state has its owner and mode" 'distmsg:distmsg 700 directory' \
        "$(stat -c '%U:%G %a %F' "$STATE")"
    equals "the identity key has its owner and mode" 'distmsg:distmsg 600' \
        "$(stat -c '%U:%G %a' "$STATE/identity.pem")"
    equals "the daemon runs as its own user" distmsg "$(ps -o user= -p "$(of MainPID)" | tr -d ' ')"
    holds "root may use it" distmsgctl status
}

# all_arrived WHO FILE COUNT: the file has who-1 to who-COUNT, each once.
all_arrived() {
    local missing twice
    missing=$(comm -23 <(seq -f "$1-%.0f" "$3" | sort) <(sort -u "$2") | sort -V | head -n 5)
    equals "no message of $1 is lost (of $3)" '' "${missing//$'\n'/ }"
    twice=$(sort "$2" | uniq -d | sort -V | head -n 5)
    equals "no message of $1 came twice" '' "${twice//$'\n'/ }"
    equals "nothing came that $1 did not send" "$3" "$(sort -u "$2" | wc -l)"
}

#!/bin/sh
# install.sh - installs distmsg without a package manager, from the directory that this is in.
#
#   ./install.sh                 for the whole machine, as root
#   ./install.sh --user          for this user, into ~/.local
#   ./install.sh [--user] uninstall
#
# Environment: PREFIX (/usr/local, or ~/.local for --user); DESTDIR, put before every path, for packagers:
# then nothing on this machine is changed beside what is below it.
#
# A configuration that is there stays as it is. 'uninstall' keeps configuration, identity and messages.
# Nothing is started or enabled; what to say for that is printed.
set -eu
# Whatever the administrator's own files are to be: these are for everybody.
umask 022

source=$(cd "$(dirname "$0")" && pwd)
mode=system
action=install
for argument; do
    case $argument in
    --user) mode=user ;;
    uninstall) action=uninstall ;;
    -h | --help)
        sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
    *)
        echo "install.sh: unknown argument '$argument'; see ./install.sh --help" >&2
        exit 2
        ;;
    esac
done

DESTDIR=${DESTDIR:-}
if [ "$mode" = user ]; then
    PREFIX=${PREFIX:-$HOME/.local}
    units=$PREFIX/share/systemd/user
else
    PREFIX=${PREFIX:-/usr/local}
    case $PREFIX in
    /usr | /usr/local) lib=$PREFIX/lib ;;
    # systemd looks nowhere else.
    *) lib=/etc ;;
    esac
    units=$lib/systemd/system
fi
case $PREFIX in
/*[!A-Za-z0-9/._+-]* | [!/]* | '')
    echo "install.sh: PREFIX must be an absolute path of letters, digits and ._+-: '$PREFIX'" >&2
    exit 2
    ;;
esac
share=$PREFIX/share

# every_file COMMAND: runs it with mode, source and destination of each file.
every_file() {
    "$1" 755 bin/distmsg "$PREFIX/bin/distmsg"
    "$1" 755 bin/distmsgctl "$PREFIX/bin/distmsgctl"
    if [ "$mode" = user ]; then
        "$1" 644 packaging/user/distmsg.service "$units/distmsg.service"
        "$1" 644 packaging/user/distmsg.socket "$units/distmsg.socket"
    else
        "$1" 644 packaging/distmsg.service "$units/distmsg.service"
        "$1" 644 packaging/distmsg.socket "$units/distmsg.socket"
        "$1" 644 packaging/distmsg.sysusers "$lib/sysusers.d/distmsg.conf"
        "$1" 644 packaging/distmsg.tmpfiles "$lib/tmpfiles.d/distmsg.conf"
    fi
    for file in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE; do
        "$1" 644 "$file" "$share/doc/distmsg/$file"
    done
    every_file_in examples "$share/doc/distmsg/examples" "$1"
    for section in 1 5 7 8; do
        every_file_in man "$share/man/man$section" "$1" ".$section"
    done
    for program in distmsg distmsgctl; do
        "$1" 644 "completions/$program.bash" "$share/bash-completion/completions/$program"
        "$1" 644 "completions/_$program" "$share/zsh/site-functions/_$program"
        "$1" 644 "completions/$program.fish" "$share/fish/vendor_completions.d/$program.fish"
    done
}

# every_file_in FOLDER DESTINATION COMMAND [SUFFIX]
every_file_in() {
    for path in "$source/$1"/*"${4:-}"; do
        [ -f "$path" ] || continue
        permissions=644
        [ ! -x "$path" ] || permissions=755
        "$3" "$permissions" "$1/${path##*/}" "$2/${path##*/}"
    done
}

put() {
    mkdir -p "$(dirname "$DESTDIR$3")"
    case $3 in
    *.service)
        sed "s|/usr/bin/distmsg|$PREFIX/bin/distmsg|" "$source/$2" >"$DESTDIR$3.new"
        ;;
    *) cp "$source/$2" "$DESTDIR$3.new" ;;
    esac
    chmod "$1" "$DESTDIR$3.new"
    # A program that runs is not written to, but replaced.
    mv -f "$DESTDIR$3.new" "$DESTDIR$3"
}

take_away() {
    rm -f "$DESTDIR$3"
}

# systemd_runs: it can be told about units, and is not to be left alone.
systemd_runs() {
    [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

manager() {
    if [ "$mode" = user ]; then systemctl --user "$@"; else systemctl "$@"; fi
}

config=$DESTDIR/etc/distmsg/config.toml
if [ "$action" = install ]; then
    every_file put
    if [ "$mode" = system ] && [ ! -e "$config" ]; then
        mkdir -p "$(dirname "$config")"
        cp "$source/packaging/config.toml" "$config"
        chmod 644 "$config"
    fi
    if systemd_runs; then
        if [ "$mode" = system ]; then
            systemd-sysusers distmsg.conf
            systemd-tmpfiles --create distmsg.conf
        fi
        manager daemon-reload || true
    fi
    user=
    [ "$mode" = system ] || user=' --user'
    echo "installed in $DESTDIR$PREFIX; start it now and at every boot with:"
    echo "  systemctl$user enable --now distmsg"
else
    if systemd_runs; then
        manager disable --now distmsg.service distmsg.socket >/dev/null 2>&1 || true
    fi
    every_file take_away
    rmdir "$DESTDIR$share/doc/distmsg/examples" "$DESTDIR$share/doc/distmsg" 2>/dev/null || true
    if systemd_runs; then
        manager daemon-reload || true
    fi
    echo "uninstalled from $DESTDIR$PREFIX; configuration, identity and messages are where they were"
fi

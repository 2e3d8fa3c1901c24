#!/usr/bin/env bash
# A control client of distmsg in shell, with jq and either nc (of OpenBSD) or socat.
#
#   client.sh status
#   client.sh send bob 'the cellar is flooding'
#   client.sh listen 3
#
# It speaks with the daemon of this machine through its Unix socket, or, if DISTMSG_INTERFACE_ADDR is
# set to something like 127.0.0.1:8080, by the TCP interface port in clear text, with the token in
# DISTMSG_TOKEN_FILE. (For TLS to another machine there is client.py.)
#
# Exit codes: 0 done, 1 the daemon said no, 2 usage, 3 no way to the daemon.
set -euo pipefail

# The user's own daemon, if there is one; else the system's.
socket=${XDG_RUNTIME_DIR:-/nonexistent}/distmsg/socket
[ -e "$socket" ] || socket=/run/distmsg/socket
socket=${DISTMSG_SOCKET:-$socket}
address=${DISTMSG_INTERFACE_ADDR:-}
token_file=${DISTMSG_TOKEN_FILE:-${XDG_STATE_HOME:-$HOME/.local/state}/distmsg/interface-token}

fail() {
    printf 'client.sh: %s\n' "$2" >&2
    exit "$1"
}

# The program that carries lines to the daemon and back. It ends when the daemon does, not before:
# what was asked last is still to be answered.
carry() {
    local host=${address%:*}
    if [ -n "$address" ]; then
        # An IPv6 address stands in brackets, which nc does not know.
        host=${host#[} host=${host%]}
        if command -v nc >/dev/null; then exec nc -N "$host" "${address##*:}"; fi
        exec socat -t 3600 - "TCP:$address"
    fi
    if command -v nc >/dev/null; then exec nc -N -U "$socket"; fi
    exec socat -t 3600 - "UNIX-CONNECT:$socket"
}

# request ID METHOD [PARAMS]: one request, as a line.
request() {
    local params=${3:-}
    jq -cn --argjson id "$1" --arg method "$2" --argjson params "${params:-null}" \
        '{jsonrpc: "2.0", $id, $method, params: ($params // {})}'
}

# The first line: by TCP the token. jq reads it from its file, so that it is no process's argument.
authenticate() {
    [ -z "$address" ] || jq -cR '{jsonrpc: "2.0", id: 0, method: "authenticate", params: {token: .}}' \
        "$token_file"
}

# The line for people of an error, whether of a request or of the connection.
why() {
    jq -r '"\(.error.message) (\(.error.data.code))"' <<<"$1"
}

# call METHOD [PARAMS]: makes one request, and prints the result of its reply. Whatever the daemon says
# no to (the token, the request, one client too many) ends it.
call() {
    local reply
    reply=$({ authenticate && request 1 "$@"; } | carry |
        jq -cn 'first(inputs | select(.error or .id == 1)) // empty') || true
    [ -n "$reply" ] || fail 3 'no way to the daemon, or it said nothing'
    [ "$(jq 'has("error")' <<<"$reply")" = false ] || fail 1 "$(why "$reply")"
    jq .result <<<"$reply"
}

status() {
    call status
}

# send PEER BODY
send() {
    call send "$(jq -cn --arg peer "$1" --arg body "$2" '{$peer, $body}')" |
        jq -r '"\(.state) \(.id)"'
}

# listen [COUNT]: prints what the listener `client.sh` has not read, as JSON, one message a line, and
# acknowledges each once it is printed. It ends when the last acknowledgement is answered.
listen() {
    local left=${1:--1} line subscription= last=1
    coproc DAEMON { carry; }
    { authenticate && request 1 listen '{"name": "client.sh", "window": 16}'; } >&"${DAEMON[1]}"
    while IFS= read -r line <&"${DAEMON[0]}"; do
        case $(jq -r 'if .error then "error" else .method // "reply \(.id)" end' <<<"$line") in
            error) fail 1 "$(why "$line")" ;;
            'reply 1') subscription=$(jq .result.subscription <<<"$line") ;;
            "reply $last") [ "$left" -ne 0 ] || return 0 ;;
            message)
                # What comes beyond the count is not ours to acknowledge: it will come again.
                [ "$left" -ne 0 ] || continue
                # What does not fit in a line would have to be fetched with `read`, as client.py does.
                jq -e '.params.message | has("body") or has("body_base64")' <<<"$line" >/dev/null ||
                    fail 1 "message $(jq .params.message.cursor <<<"$line") is too large for this\
 example, and stays unread; 'distmsgctl listen --name client.sh' takes it"
                jq -c .params.message <<<"$line"
                last=$((last + 1)) left=$((left - 1))
                request "$last" ack "$(jq -c --argjson subscription "$subscription" \
                    '{$subscription, cursors: [.params.message.cursor]}' <<<"$line")" >&"${DAEMON[1]}"
                ;;
        esac
    done
    fail 3 'no way to the daemon, or it closed the connection'
}

case ${1:-} in
    status) [ $# = 1 ] || fail 2 'usage: client.sh status' && status ;;
    send) [ $# = 3 ] || fail 2 'usage: client.sh send PEER BODY' && send "$2" "$3" ;;
    listen) [ $# -le 2 ] || fail 2 'usage: client.sh listen [COUNT]' && listen "${2:-}" ;;
    *) fail 2 'usage: client.sh status | send PEER BODY | listen [COUNT]' ;;
esac

#!/bin/bash
# netns-rig.sh - N hosts on one machine, each in its own network namespace, on a switch that can be cut, slowed and made lossy.
#
#   netns-rig.sh up N                   hosts 1..N: namespace RIG-I, interface eth0, addresses 10.77.0.I/24 and fd77::I/64
#   netns-rig.sh exec I CMD [ARG...]    run CMD on host I (foreground; hosts know each other as h1..hN)
#   netns-rig.sh cut I J                silently drop everything between I and J, both ways (broadcasts and multicasts too)
#   netns-rig.sh heal I J | heal all    undo it
#   netns-rig.sh partition A,B C,D ...  cut every pair of hosts that are in different groups (heals all others first)
#   netns-rig.sh netem I DELAY LOSS [JITTER]   what leaves host I: DELAY ms one way, LOSS percent, +-JITTER ms (0 0 undoes it)
#   netns-rig.sh status                 hosts, cuts, delays
#   netns-rig.sh down                   remove everything (ends the processes in the hosts that `ip netns pids` lists)
#
# Environment: RIG (default rig) names the rig, so that several can exist at once; RIG_NET4, RIG_NET6 its /24 and /64 prefixes.
# The switch is in a namespace of its own (RIG-sw): the machine itself has no address and no route there, and the hosts have
# none to the outside. Where the kernel has tc's netem, that is used; where not, loss is an nftables rule on the switch and delay
# is a small Python process per delayed host that holds its frames back (about 0.2 ms exact, some 50,000 frames a second).
# Needs root, iproute2, nftables, and python3 for delay without netem.
set -euo pipefail

RIG=${RIG:-rig}; NET4=${RIG_NET4:-10.77.0}; NET6=${RIG_NET6:-fd77:}
RUN=/run/netns-rig/$RIG; SW=$RIG-sw
die() { echo "netns-rig: $*" >&2; exit 2; }
usage() { sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/!p}' "$0"; exit "${1:-0}"; }
[ $# -gt 0 ] || usage 2
case $1 in -h|--help|help) usage ;; esac
[ "$(id -u)" = 0 ] || die "must run as root"
insw() { ip netns exec "$SW" "$@"; }
count() { cat "$RUN/n" 2>/dev/null || die "no rig '$RIG' is up"; }
host() { local n; n=$(count); [[ $1 =~ ^[0-9]+$ ]] && [ "$1" -ge 1 ] && [ "$1" -le "$n" ] || die "no host '$1' (1..$n)"; }
ms() { local v=${1%ms}; [[ $v =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "not milliseconds: $1"; echo "$v"; }
percent() { local v=${1%\%}; [[ $v =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "not a percentage: $1"; echo "$v"; }
pairs() { local a b; for a in "p$1" "d$1"; do for b in "p$2" "d$2"; do printf '%s . %s, %s . %s, ' "$a" "$b" "$b" "$a"; done; done; }

wire_pid() {                                         # PID of host $1's delay process, if it is still that
	local p; p=$(cat "$RUN/wire-$1.pid" 2>/dev/null) || return 1
	tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -q "$RUN/wire.py" && echo "$p"
}
wire_stop() {
	local p
	if p=$(wire_pid "$1"); then
		kill "$p"; for _ in $(seq 1 50); do kill -0 "$p" 2>/dev/null || break; sleep 0.02; done
	fi
	rm -f "$RUN/wire-$1".*
}

cmd_up() {
	local n=$1 i mac
	[[ $n =~ ^[0-9]+$ ]] && [ "$n" -ge 1 ] && [ "$n" -le 250 ] || die "up N, with N from 1 to 250"
	[ ! -e "$RUN" ] || die "rig '$RIG' is up already"
	command -v nft >/dev/null || die "nft is missing; install nftables"
	mkdir -p "$RUN"; echo "$n" >"$RUN/n"
	ip netns add "$SW"
	# shellcheck disable=SC2016
	insw sh -c 'sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 2>/dev/null ||
		for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done
		ip link set lo up; ip link add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0; ip link set br0 up'
	insw nft -f - <<-'NFT'
	table bridge rig {
		set cut { type ifname . ifname; }
		chain loss { }
		chain forward {
			type filter hook forward priority 0; policy accept;
			iifname . oifname @cut drop
			jump loss
		}
	}
	NFT
	for i in $(seq 1 "$n"); do
		mac=$(printf '02:00:00:00:00:%02x' "$i")
		ip netns add "$RIG-$i"
		mkdir -p "/etc/netns/$RIG-$i"
		{ echo "127.0.0.1 localhost h$i"; echo "::1 localhost"
			for j in $(seq 1 "$n"); do [ "$j" = "$i" ] || echo "$NET4.$j h$j"; echo "$NET6:$j h$j"; done; } >"/etc/netns/$RIG-$i/hosts"
		: >"/etc/netns/$RIG-$i/resolv.conf"
		ip -n "$SW" link add "p$i" type veth peer name eth0 netns "$RIG-$i" address "$mac"
		ip -n "$SW" link set "p$i" master br0 up
		ip netns exec "$RIG-$i" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad' 2>/dev/null || true
		ip -n "$RIG-$i" link set lo up
		ip -n "$RIG-$i" link set eth0 up
		ip -n "$RIG-$i" addr add "$NET4.$i/24" dev eth0
		ip -n "$RIG-$i" addr add "$NET6:$i/64" dev eth0 nodad
	done
	echo "netns-rig: $n hosts up: namespaces $RIG-1..$RIG-$n, $NET4.1..$n, $NET6:1..$n"
}

cmd_down() {
	local n i p left
	[ -e "$RUN/n" ] || { echo "netns-rig: no rig '$RIG' is up"; return 0; }
	n=$(count)
	for i in $(seq 1 "$n"); do wire_stop "$i"; done
	for i in $(seq 1 "$n"); do                       # what still runs in our own namespaces was started there by `exec`
		for p in $(ip netns pids "$RIG-$i" 2>/dev/null); do kill "$p" 2>/dev/null || true; done
	done
	for _ in $(seq 1 20); do
		left=; for i in $(seq 1 "$n"); do left="$left$(ip netns pids "$RIG-$i" 2>/dev/null | tr '\n' ' ')"; done
		[ -n "${left// /}" ] || break; sleep 0.1
	done
	for p in $left; do kill -KILL "$p" 2>/dev/null || true; done
	for i in $(seq 1 "$n"); do ip netns del "$RIG-$i" 2>/dev/null || true; rm -rf "/etc/netns/$RIG-$i"; done
	ip netns del "$SW" 2>/dev/null || true
	rm -rf "$RUN"; rmdir --ignore-fail-on-non-empty /run/netns-rig /etc/netns 2>/dev/null || true
	echo "netns-rig: '$RIG' is down"
}

cmd_cut()  { host "$1"; host "$2"; [ "$1" != "$2" ] || die "one host"; insw nft "add element bridge rig cut { $(pairs "$1" "$2") }"; }
cmd_heal() {
	if [ "$1" = all ]; then count >/dev/null; insw nft flush set bridge rig cut; return; fi
	host "$1"; host "$2"
	# Adding first makes it right for a pair that was not cut; both in one transaction.
	printf 'add element bridge rig cut { %s }\ndelete element bridge rig cut { %s }\n' "$(pairs "$1" "$2")" "$(pairs "$1" "$2")" | insw nft -f -
}
cmd_partition() {
	local a b i j e=
	[ $# -ge 2 ] || die "partition needs two groups or more, like 1,2 3,4"
	local g=("$@")
	for ((a = 0; a < ${#g[@]}; a++)); do
		for ((b = a + 1; b < ${#g[@]}; b++)); do
			for i in ${g[a]//,/ }; do for j in ${g[b]//,/ }; do host "$i"; host "$j"; e="$e$(pairs "$i" "$j")"; done; done
		done
	done
	printf 'flush set bridge rig cut\nadd element bridge rig cut { %s }\n' "$e" | insw nft -f -
}

has_netem() { insw tc qdisc add dev lo root netem delay 1ms 2>/dev/null && insw tc qdisc del dev lo root; }

loss_rules() {                                       # the switch's loss chain anew, from the files loss-I
	local f i v
	{
		echo "flush chain bridge rig loss"
		for f in "$RUN"/loss-*; do
			[ -e "$f" ] || continue; i=${f##*-}; v=$(awk -v p="$(cat "$f")" 'BEGIN{printf "%d", p*100+0.5}')
			[ "$v" -gt 0 ] || continue
			echo "add rule bridge rig loss iifname { p$i, d$i } numgen random mod 10000 < $v drop"
		done
	} | insw nft -f -
}

cmd_netem() {
	local i=$1 delay loss jitter p
	host "$i"; delay=$(ms "$2"); loss=$(percent "$3"); jitter=$(ms "${4:-0}")
	local zero; zero=$(awk -v d="$delay" -v j="$jitter" 'BEGIN{print (d+j==0)}')
	echo "$delay $loss $jitter" >"$RUN/netem-$i"
	if has_netem; then
		ip netns exec "$RIG-$i" tc qdisc del dev eth0 root 2>/dev/null || true
		if [ "$zero" = 1 ] && awk -v l="$loss" 'BEGIN{exit l!=0}'; then rm -f "$RUN/netem-$i"; return; fi
		ip netns exec "$RIG-$i" tc qdisc add dev eth0 root netem limit 100000 delay "${delay}ms" "${jitter}ms" loss "$loss%"
		return
	fi
	echo "$loss" >"$RUN/loss-$i"; loss_rules
	if [ "$zero" = 1 ]; then
		if [ -e "$RUN/wire-$i.pid" ]; then
			wire_stop "$i"; ip -n "$SW" link del "d$i" 2>/dev/null || true
			ip -n "$SW" link set "p$i" master br0
		fi
		if awk -v l="$loss" 'BEGIN{exit l!=0}'; then rm -f "$RUN/netem-$i" "$RUN/loss-$i"; fi
		return
	fi
	echo "$delay $jitter" >"$RUN/wire-$i.conf"
	if p=$(wire_pid "$i"); then kill -HUP "$p"; return; fi
	command -v python3 >/dev/null || die "delay without netem needs python3"
	wire_py >"$RUN/wire.py"
	# Frames are handled whole and with their checksums from now on: no segmentation offload at the host.
	ip netns exec "$RIG-$i" python3 "$RUN/wire.py" offload eth0
	ip -n "$SW" link set "p$i" nomaster
	ip netns exec "$SW" setsid python3 "$RUN/wire.py" "p$i" "d$i" "$RUN/wire-$i" </dev/null >"$RUN/wire-$i.log" 2>&1 &
	for _ in $(seq 1 100); do [ -e "$RUN/wire-$i.ready" ] && break; sleep 0.02; done
	[ -e "$RUN/wire-$i.ready" ] || { cat "$RUN/wire-$i.log" >&2; die "the delay process did not start"; }
	ip -n "$SW" link set "d$i" master br0 up
}

wire_py() {
	cat <<-'PY'
	import fcntl, heapq, os, random, select, signal, socket, struct, sys, time
	def offload(dev):
	    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
	    import array
	    for cmd in (0x17, 0x1f, 0x25, 0x24, 0x2c):      # tx checksum, tso, ufo, gso, gro: off
	        b = array.array('B', struct.pack('II', cmd, 0))
	        try: fcntl.ioctl(s, 0x8946, struct.pack('16sP', dev.encode(), b.buffer_info()[0]))
	        except OSError: pass
	if sys.argv[1] == 'offload': offload(sys.argv[2]); sys.exit()
	port, tap, base = sys.argv[1:4]
	delay = jitter = 0.0
	def conf(*_):
	    global delay, jitter
	    delay, jitter = (float(x) / 1000 for x in open(base + '.conf').read().split())
	conf(); signal.signal(signal.SIGHUP, conf); signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
	t = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
	fcntl.ioctl(t, 0x400454ca, struct.pack('16sH22x', tap.encode(), 0x0002 | 0x1000))   # TAP, no packet info
	s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind((port, 3)); s.setblocking(False)
	s.setsockopt(263, 23, 1)                            # not what we send ourselves
	s.setsockopt(socket.SOL_SOCKET, 33, 16 << 20); s.setsockopt(263, 1, struct.pack('iHH8s', socket.if_nametoindex(port), 1, 0, b''))
	open(base + '.pid', 'w').write(str(os.getpid())); open(base + '.ready', 'w').close()
	ep = select.epoll(); ep.register(s, select.EPOLLIN); ep.register(t, select.EPOLLIN)
	heap, n = [], 0
	while True:
	    wait = max(0.0, heap[0][0] - time.monotonic()) if heap else -1
	    if wait > 0.002: ep.poll(wait - 0.001)          # epoll counts in ms: be early, then poll
	    else: ep.poll(0 if heap else -1)
	    for _ in range(256):                            # from the host: hold back
	        try: f, a = s.recvfrom(65535)
	        except BlockingIOError: break
	        except OSError: time.sleep(0.05); break     # the link is down
	        if a[2] == 4: continue
	        n += 1; heapq.heappush(heap, (time.monotonic() + max(0.0, delay + random.uniform(-jitter, jitter)), n, f))
	    for _ in range(256):                            # to the host: at once
	        try: f = os.read(t, 65535)
	        except (BlockingIOError, OSError): break
	        try: s.send(f)
	        except OSError: pass
	    now = time.monotonic()
	    while heap and heap[0][0] <= now:
	        try: os.write(t, heapq.heappop(heap)[2])
	        except OSError: pass                        # full, or the port is not up yet: lost, as on a wire
	PY
}

cmd_status() {
	local n i d; n=$(count)
	for i in $(seq 1 "$n"); do
		d=$(cat "$RUN/netem-$i" 2>/dev/null || echo "0 0 0")
		read -r a b c <<<"$d"; echo "host $i: $RIG-$i $NET4.$i $NET6:$i delay ${a}ms loss ${b}% jitter ${c}ms"
	done
	insw nft -j list set bridge rig cut | grep -o '"p[0-9]*", "p[0-9]*"' | tr -d '"p,' | awk '$1<$2{print "cut:", $1, $2}' | sort -u
}

c=$1; shift
case $c in
up) [ $# = 1 ] || usage 2; cmd_up "$@" ;;
down) cmd_down ;;
exec) [ $# -ge 2 ] || usage 2; host "$1"; i=$1; shift; exec ip netns exec "$RIG-$i" "$@" ;;
cut) [ $# = 2 ] || usage 2; cmd_cut "$@" ;;
heal) [ $# -ge 1 ] || usage 2; cmd_heal "$@" ;;
partition) cmd_partition "$@" ;;
netem) [ $# -ge 3 ] || usage 2; cmd_netem "$@" ;;
status) cmd_status ;;
*) usage 2 ;;
esac

#!/bin/bash
# deb-rig.sh - install a .deb in a freshly booted Debian with systemd as PID 1, and run a script in it.
#
#   deb-rig.sh [options] DEB SCRIPT [ARG...]   boot, run SCRIPT as root inside, pass on its output, exit with its status
#   deb-rig.sh --prepare                       only build the base image (about 1 min; each later boot takes about 1 s)
#   deb-rig.sh --drop-base                     delete the cached base image
#
# Options:
#   -f FILE    copy FILE to /rig/ too (an older .deb for an upgrade test, a config, a peer's key); repeatable
#   -i A,B     further packages in the base image (a separate base is built and cached for each list)
#   -n NETNS   put the booted host in this existing `ip netns` (e.g. one of netns-rig.sh's) instead of an empty network
#   -s DIR     show DIR, writable, as /rig/shared: what several booted hosts and the caller tell each other past the network
#   -o DIR     afterwards copy /rig/out and the whole journal (journal.txt, journal.json) to DIR
#   -t SECS    time limit for one stage of SCRIPT (default 300)
#   -k         keep the container's file system after the run and print where it is
#   -v         show the container's boot console
# Environment: RIG_SUITE (default: this machine's; trixie works too), RIG_CACHE (default /var/cache/deb-rig)
#
# What SCRIPT gets: it runs as root in a transient system service of the booted container (bash not assumed: its own #! line
# counts), with RIG_DEB=/rig/NAME.deb, RIG_DIR=/rig (the files given), RIG_OUT=/rig/out, RIG_STAGE=0.
#   `apt-get install -y "$RIG_DEB"` works offline: missing dependencies were downloaded before the boot.
#   exit 194   reboot the container cleanly, then run SCRIPT again with RIG_STAGE one higher
#   exit 195   kill every process of the container at once (SIGKILL), boot again, run SCRIPT again with RIG_STAGE one higher
#   124        is what a stage over its time limit gives
#   any other  the result
#
# Needs root, Debian, and mmdebstrap and systemd-container (installed with apt-get if missing). The mirror and keys are those of
# this machine's own apt configuration. It needs no systemd on the machine itself. It ends only processes that it started.
set -euo pipefail

say() { echo "deb-rig: $*" >&2; }
die() { say "$*"; exit 125; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN{printf "%.1f", b-a}'; }

EXTRA=(); INCLUDE=''; NETNS=''; SHARED=''; OUT=''; LIMIT=300; KEEP=''; VERBOSE=''; MODE=run
while [ $# -gt 0 ]; do
	case $1 in
	-f) EXTRA+=("$2"); shift 2 ;;
	-i) INCLUDE=$2; shift 2 ;;
	-n) NETNS=$2; shift 2 ;;
	-s) SHARED=$2; shift 2 ;;
	-o) OUT=$2; shift 2 ;;
	-t) LIMIT=$2; shift 2 ;;
	-k) KEEP=1; shift ;;
	-v) VERBOSE=1; shift ;;
	--prepare) MODE=prepare; shift ;;
	--drop-base) MODE=drop; shift ;;
	-h|--help) sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/!p}' "$0"; exit 0 ;;
	--) shift; break ;;
	-*) die "unknown option $1 (see --help)" ;;
	*) break ;;
	esac
done
[ "$(id -u)" = 0 ] || die "must run as root"

. /etc/os-release
SUITE=${RIG_SUITE:-$VERSION_CODENAME}
CACHE=${RIG_CACHE:-/var/cache/deb-rig}
PKGS=systemd,systemd-sysv,dbus,libpam-systemd,dbus-user-session,iproute2,procps,bash-completion,man-db
[ -n "$INCLUDE" ] && PKGS=$PKGS,$INCLUDE
BASE=$CACHE/base-$SUITE-$(printf %s "$PKGS" | sha256sum | cut -c1-12)

if [ $MODE = drop ]; then rm -rf --one-file-system "$CACHE"; say "removed $CACHE"; exit 0; fi

# --- arguments ---------------------------------------------------------------------------------------------------------------
if [ $MODE = run ]; then
	[ $# -ge 2 ] || die "usage: deb-rig.sh [options] DEB SCRIPT [ARG...] (see --help)"
	DEB=$(realpath -e -- "$1") || die "no $1"
	SCRIPT=$(realpath -e -- "$2") || die "no $2"
	shift 2
	dpkg-deb -I "$DEB" >/dev/null || die "$DEB is no .deb"
	for f in ${EXTRA[@]+"${EXTRA[@]}"}; do [ -r "$f" ] || die "no $f"; done
	[ -z "$SHARED" ] || SHARED=$(realpath -e -- "$SHARED") || die "no such directory to share"
	[ -z "$NETNS" ] || [ -e "/run/netns/$NETNS" ] || die "no network namespace $NETNS"
fi

# --- tools -------------------------------------------------------------------------------------------------------------------
need=()
command -v mmdebstrap >/dev/null || need+=(mmdebstrap)
command -v systemd-nspawn >/dev/null || need+=(systemd-container)
if [ ${#need[@]} -gt 0 ]; then
	say "installing ${need[*]}"
	apt-get update -qq >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null 2>&1 ||
		die "could not install ${need[*]}"
fi

# --- base image (cached, never booted itself: each run boots an overlay over it) ----------------------------------------------
mkdir -p "$CACHE"
exec 9>"$CACHE/lock"; flock 9
if [ ! -e "$BASE/etc/debian_version" ]; then
	t=$(now)
	sources=()
	for s in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
		# Only Debian's own archive: third-party sources have no place in a clean target.
		[ -s "$s" ] && grep -q "debian" "$s" && grep -Eq "(^|[[:space:]])$SUITE(-|[[:space:]]|\$)" "$s" && sources+=("$s")
	done
	tmp=$(mktemp -d "$CACHE/tmp.XXXXXX")
	if [ ${#sources[@]} = 0 ]; then                   # another suite than the machine's own: the same mirror, the archive's keys
		uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
			awk '/^URIs:/{print $2; exit} /^deb /{for(i=2;i<=NF;i++) if($i ~ /:\/\//){print $i; exit}}') || true
		[ -n "$uri" ] || die "no apt source in /etc/apt"
		printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uri" "$SUITE" \
			/usr/share/keyrings/debian-archive-keyring.gpg >"$tmp/rig.sources"
		sources=("$tmp/rig.sources")
	fi
	say "building the base image ($SUITE) ..."
	mmdebstrap --quiet --variant=minbase --include="$PKGS" "$SUITE" "$tmp/root" "${sources[@]}" >"$tmp/log" 2>&1 ||
		{ tail -20 "$tmp/log" >&2; rm -rf --one-file-system "$tmp"; die "mmdebstrap failed"; }
	r=$tmp/root
	echo rig >"$r/etc/hostname"
	printf '127.0.0.1\tlocalhost\n127.0.1.1\trig\n::1\tlocalhost\n' >"$r/etc/hosts"
	: >"$r/etc/resolv.conf"
	mkdir -p "$r/var/log/journal" "$r/rig/out"       # persistent journal: it must survive the reboot
	chroot "$r" passwd -d root >/dev/null 2>&1 || true
	ln -sf /dev/null "$r/etc/systemd/system/console-getty.service"
	mv "$r" "$BASE"; rm -rf --one-file-system "$tmp"
	say "base image built in $(since "$t") s, $(du -sm "$BASE" | cut -f1) MiB"
fi
flock -u 9
[ $MODE = prepare ] && exit 0

# --- one run -----------------------------------------------------------------------------------------------------------------
RUN=$(mktemp -d "$CACHE/run.XXXXXX"); ROOT=$RUN/root; NAME=rig-$$
NSPAWN=''; LEADER=''; RUNNER=''; CGROUPS=()
mkdir "$RUN/up" "$RUN/work" "$ROOT"

leader() {                                           # PID (out here) of the container's PID 1
	local c
	for c in $(cat "/proc/$NSPAWN/task/$NSPAWN/children" 2>/dev/null); do
		[ "$(awk '/^NSpid:/{print $NF}' "/proc/$c/status" 2>/dev/null)" = 1 ] &&
			[ "$(cat "/proc/$c/comm" 2>/dev/null)" = systemd ] && { echo "$c"; return 0; }
	done
	return 1
}
inside() { nsenter -t "$LEADER" -a -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }
alive() { [ -n "$NSPAWN" ] && kill -0 "$NSPAWN" 2>/dev/null; }
wait_gone() { for _ in $(seq 1 $(($1 * 10))); do alive || return 0; sleep 0.1; done; return 1; }

boot() {
	local t state='' g; t=$(now)
	# The container's cgroups go below directories of our own, so that nothing else on the machine is touched.
	CGROUPS=()
	for g in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ -e "$g/cgroup.subtree_control" ] && CGROUPS+=("$g/$NAME") && break; done
	[ -e /sys/fs/cgroup/systemd/cgroup.procs ] && CGROUPS+=("/sys/fs/cgroup/systemd/$NAME")
	for g in "${CGROUPS[@]}"; do mkdir -p "$g"; done
	local net=(--private-network)
	[ -n "$NETNS" ] && net=(--network-namespace-path="/run/netns/$NETNS")
	[ -n "$SHARED" ] && net+=(--bind="$SHARED:/rig/shared")
	(
		for g in "${CGROUPS[@]}"; do echo $BASHPID >"$g/cgroup.procs"; done
		# Unified cgroups inside, as on an installed Debian 12, even where the machine itself has the old layout.
		export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
		exec systemd-nspawn --quiet --directory="$ROOT" --boot --machine="$NAME" --hostname=rig "${net[@]}" \
			--register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off --console=read-only \
			--capability=CAP_BPF,CAP_PERFMON --system-call-filter=bpf    # or IPAddressDeny= and DeviceAllow= do nothing
	) </dev/null >>"$RUN/console.log" 2>&1 9>&- &
	NSPAWN=$!
	for _ in $(seq 1 600); do
		alive || { cat "$RUN/console.log" >&2; die "the container did not start"; }
		if LEADER=$(leader); then
			state=$(inside systemctl is-system-running 2>/dev/null) || true
			case $state in running|degraded) break ;; esac
		fi
		sleep 0.1
	done
	case $state in running|degraded) ;; *) tail -30 "$RUN/console.log" >&2; die "not up after 60 s (${state:-no answer})" ;; esac
	say "stage $STAGE: booted in $(since "$t") s, state $state"
	[ "$state" = running ] || inside systemctl --failed --no-legend --plain >&2
}

stop() {                                             # clean shutdown; by force, and only our own processes, if that hangs
	alive || { NSPAWN=; return 0; }
	if LEADER=$(leader); then timeout 10 nsenter -t "$LEADER" -a -- systemctl --no-block poweroff >/dev/null 2>&1 || true; fi
	if ! wait_gone 30; then
		say "shutdown took more than 30 s: killing the container"
		LEADER=$(leader) && kill -KILL "$LEADER" 2>/dev/null
		wait_gone 5 || kill -KILL "$NSPAWN" 2>/dev/null || true
	fi
	wait "$NSPAWN" 2>/dev/null || true
	NSPAWN=
}

cleanup() {
	local rc=$? g
	trap - EXIT INT TERM HUP
	set +e
	# Cut off by a signal while SCRIPT ran: no clean shutdown. PID 1's end ends all else in its namespace, nsenter's child too.
	if [ -n "$RUNNER" ] && LEADER=$(leader); then kill -KILL "$LEADER" 2>/dev/null; wait_gone 10; fi
	stop
	[ -n "$VERBOSE" ] && [ -s "$RUN/console.log" ] && sed 's/^/console: /' "$RUN/console.log" >&2
	mountpoint -q "$ROOT" && { umount "$ROOT" || umount -l "$ROOT"; }
	for g in "${CGROUPS[@]}"; do [ -d "$g" ] && find "$g" -depth -type d -exec rmdir {} + 2>/dev/null; done
	if [ -n "$KEEP" ]; then say "kept: $RUN/up (what the run changed, over $BASE)"; else rm -rf --one-file-system "$RUN"; fi
	exit $rc
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$RUN/up,workdir=$RUN/work" "$ROOT"
tr -d - </proc/sys/kernel/random/uuid >"$ROOT/etc/machine-id"
mkdir -p "$ROOT/rig/out"
cp -- "$DEB" ${EXTRA[@]+"${EXTRA[@]}"} "$ROOT/rig/"
cp -- "$SCRIPT" "$ROOT/rig/.script"; chmod 755 "$ROOT/rig/.script"
for d in "$ROOT"/rig/*.deb; do
	# Dependencies that the base lacks: download them now, from out here, since the booted container has no way out.
	if ! chroot "$ROOT" apt-get -s -qq install "/rig/${d##*/}" >/dev/null 2>&1; then
		t=$(now)
		cp /etc/resolv.conf "$ROOT/etc/resolv.conf" 2>/dev/null || true
		[ -n "$(find "$ROOT/var/lib/apt/lists" -maxdepth 1 -name '*Packages*' -print -quit)" ] || chroot "$ROOT" apt-get -qq update ||
			die "apt-get update for the dependencies failed"
		chroot "$ROOT" apt-get -qq -y --download-only install "/rig/${d##*/}" >"$RUN/apt.log" 2>&1 ||
			{ cat "$RUN/apt.log" >&2; die "the dependencies of ${d##*/} cannot be had"; }
		: >"$ROOT/etc/resolv.conf"
		say "dependencies of ${d##*/} downloaded in $(since "$t") s"
	fi
done

STAGE=0; t0=$(now)
while :; do
	boot
	rc=0
	# In the background, so that a signal to this script ends the run at once.
	timeout -k 10 $((LIMIT + 30)) nsenter -t "$LEADER" -a -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		systemd-run --quiet --wait --pipe --collect --service-type=exec --unit="rig-stage-$STAGE" \
		-p KillMode=mixed -p WorkingDirectory=/rig \
		-E RIG_DEB="/rig/${DEB##*/}" -E RIG_DIR=/rig -E RIG_OUT=/rig/out -E RIG_STAGE="$STAGE" \
		-E PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin -E HOME=/root -E LANG=C.UTF-8 \
		-E DEBIAN_FRONTEND=noninteractive \
		/usr/bin/timeout -k 5 "$LIMIT" /rig/.script "$@" </dev/null &
	RUNNER=$!
	wait "$RUNNER" || rc=$?
	RUNNER=
	[ "$rc" != 124 ] || say "stage $STAGE: over its limit of $LIMIT s"
	case $rc in
	194) say "stage $STAGE: reboot"
		inside systemctl --no-block reboot || true
		wait_gone 60 || die "the reboot hangs"
		wait "$NSPAWN" 2>/dev/null || true ;;          # nspawn ends with 133 for 'reboot': we boot again ourselves
	195) say "stage $STAGE: everything killed"
		kill -KILL "$LEADER"
		wait_gone 20 || die "the container does not die"
		wait "$NSPAWN" 2>/dev/null || true ;;
	*) break ;;
	esac
	NSPAWN=; STAGE=$((STAGE + 1))
	for g in "${CGROUPS[@]}"; do find "$g" -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || true; done
	[ "$STAGE" -lt 20 ] || die "20 reboots: giving up"
done

if [ -n "$OUT" ]; then
	mkdir -p "$OUT"
	inside journalctl --no-pager -o short-precise >"$OUT/journal.txt" 2>/dev/null || true
	inside journalctl --no-pager -o json >"$OUT/journal.json" 2>/dev/null || true
	cp -a "$ROOT/rig/out/." "$OUT/"
fi
say "script ended with $rc after $(since "$t0") s and $((STAGE + 1)) boot(s)"
exit "$rc"

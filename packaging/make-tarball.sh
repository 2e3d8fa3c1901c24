#!/bin/sh
# make-tarball.sh [BIN_DIR [OUT_DIR]]: packs what was built (target/release, by 'cargo build --release')
# and its install script into OUT_DIR (target/package), and prints where that is.
set -eu
cd "$(dirname "$0")/.."

bin=${1:-target/release}
out=${2:-target/package}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
name=distmsg-$version-$(uname -m)-linux

mkdir -p "$out"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/$name/bin" "$tree/$name/packaging"
for program in distmsg distmsgctl; do
    cp "$bin/$program" "$tree/$name/bin/"
    strip "$tree/$name/bin/$program" 2>/dev/null || true
done
cp -R packaging/distmsg.* packaging/config.toml packaging/user "$tree/$name/packaging/"
cp packaging/install.sh README.md CHANGELOG.md LICENSE-* "$tree/$name/"
for dir in man completions examples; do
    [ ! -d "$dir" ] || cp -R "$dir" "$tree/$name/"
done
# The same whoever packs it.
tar --sort=name --owner=0 --group=0 --numeric-owner -C "$tree" -czf "$out/$name.tar.gz" "$name"
printf '%s\n' "$out/$name.tar.gz"

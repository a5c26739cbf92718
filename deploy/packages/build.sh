#!/usr/bin/env bash
# Builds the packages of this checkout's version into target/packages: a .deb (cargo-deb), and a .tar.gz with the same
# things for distributions without one. Both hold one program that needs nothing but glibc; which, the last line says.
#
#   deploy/packages/build.sh
#
# Needs cargo, and cargo-deb (cargo install --locked cargo-deb; CARGO_DEB names another place of it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=target/packages
stage=$out/stage
cargo_deb=${CARGO_DEB:-cargo-deb}
command -v "$cargo_deb" >/dev/null || { echo "cargo-deb is missing: cargo install --locked cargo-deb"; exit 1; }

rm -rf "$out"
mkdir -p "$stage/man" "$stage/completions" "$stage/systemd"
cargo build --release --locked --bins
program=${CARGO_TARGET_DIR:-target}/release/balancer
"$program" man --all "$stage/man"
for shell in bash zsh fish; do "$program" completions "$shell" > "$stage/completions/$shell"; done
# A package's programs are in /usr/bin; what an administrator installs by hand is in /usr/local.
sed 's,/usr/local/bin/,/usr/bin/,' deploy/systemd/balancer.service > "$stage/systemd/balancer.service"
cp deploy/systemd/balancer.socket "$stage/systemd/"

"$cargo_deb" --no-build --output "$out/" >/dev/null

version=$("$program" --version | cut -d' ' -f2)
name=balancer-$version-$(uname -m)-linux
mkdir "$stage/$name"
install -m 755 "$program" "$stage/$name/"
strip "$stage/$name/balancer"
install -m 644 config.json README.md LICENSE LICENSE-APACHE LICENSE-MIT "$stage/$name/"
cp -r docs "$stage/$name/docs"
cp -r "$stage/man" "$stage/completions" deploy/systemd "$stage/$name/"
tar -C "$stage" --owner=0 --group=0 --numeric-owner -czf "$out/$name.tar.gz" "$name"
rm -r "$stage/$name"

ls -1s --block-size=KiB "$out"/*.deb "$out"/*.tar.gz
newest=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
echo "needs ${newest/_/ } or newer, and of other libraries: $(ldd "$program" | awk '{print $1}' | grep -vE '^(linux-vdso|libc\.|libm\.|libgcc_s|/lib)' | xargs || true)"

# Sourced by the scripts beside it: `begin WHAT PROGRAM…` ends the script when a program is missing, and sees to BIN.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

begin() {
  local what=$1 program built
  shift
  for program in "$@"; do
    command -v "$program" >/dev/null || { echo "$what needs $program (Debian: apt-get install nginx haproxy wrk python3)"; exit 2; }
  done
  if [ -z "${BIN:-}" ]; then
    command -v cargo >/dev/null || { echo "$what needs cargo, or BIN"; exit 2; }
    built=$(cargo build --release --locked --bins --manifest-path "$root/Cargo.toml" --message-format json-render-diagnostics)
    BIN=$(sed -n 's/.*"executable":"\([^"]*\/balancer\)".*/\1/p' <<<"$built" | tail -n 1)
  fi
  BIN=$(realpath "$BIN")
  export BIN
}

#!/bin/sh
# What the tests need beside Python packages: installed on Debian as root, else told in one line.
set -eu

packages="postgresql-15 postgresql-15-pgtap postgresql-15-plpgsql-check \
libtap-parser-sourcehandler-pgtap-perl sqitch libdbd-pg-perl redis-server prometheus chromium \
pgbouncer libfaketime python3-venv"

if ! command -v dpkg-query > /dev/null; then
    if ! command -v pg_prove > /dev/null || ! command -v sqitch > /dev/null ||
        ! command -v redis-server > /dev/null || ! command -v promtool > /dev/null ||
        ! command -v chromium > /dev/null || ! command -v npm > /dev/null; then
        cat >&2 <<MESSAGE
The tests need PostgreSQL 15 with pgTAP and plpgsql_check, pg_prove, Sqitch, Redis, promtool, npm
and Chromium. On macOS (not tried):
  brew install postgresql@15 sqitchers/sqitch/sqitch redis prometheus node cpanminus chromium
  cpanm TAP::Parser::SourceHandler::pgTAP
and pgTAP and plpgsql_check from source. \`make demo\` needs none of this.
MESSAGE
        exit 1
    fi
    exit 0
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed ||
        missing="$missing $package"
done
# It may come from elsewhere, with a newer Node.
command -v npm > /dev/null || missing="$missing npm"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "sudo apt-get install$missing" >&2
    exit 1
fi

echo "Installing Debian's packages:$missing"
# The tests start servers of their own; without this the packages would make and start some, too.
config=/etc/postgresql-common/createcluster.d/app_jobs.conf
mkdir -p "${config%/*}"
echo 'create_main_cluster = false' > "$config"
policy=/usr/sbin/policy-rc.d
made=$config
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    made="$config $policy"
fi
# shellcheck disable=SC2064,SC2086 # two files, known now
trap "rm -f $made" EXIT
install() {
    # shellcheck disable=SC2086 # words are meant to split
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing > "$1" 2>&1
}
log=$(mktemp)
if ! install "$log"; then
    # A bare machine has no package lists yet, another may have old ones.
    echo "Updating the lists of Debian's packages"
    apt-get update -qq
    install "$log" || { cat "$log" >&2; exit 1; }
fi
rm -f "$log"

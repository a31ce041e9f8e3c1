#!/bin/sh
# deploy | verify | revert | status [CHANGE]: through Sqitch where it is installed, else by the
# package's migrator. Both read sqitch.plan and keep the same registry. SCHEMA: another schema name,
# for which Sqitch gets a project folder of its own, build/NAME.
set -eu
command=$1
to=${2-}
schema=${SCHEMA:-app_jobs}

if [ -z "${DATABASE_URL-}${PGDATABASE-}" ]; then
    cat >&2 <<MESSAGE
Which database? Set PGDATABASE (and PGHOST, PGUSER, … as for psql) or DATABASE_URL:
  make $command PGDATABASE=mydb
  make $command DATABASE_URL=postgresql://user@host/mydb
MESSAGE
    exit 2
fi

# Sqitch takes URLs, but not libpq's keyword form.
case ${DATABASE_URL-} in
    '') target=db:pg: ;;
    postgres://* | postgresql://*) target=db:postgresql:${DATABASE_URL#*:} ;;
    *) target= ;;
esac

if [ -n "$target" ] && command -v sqitch > /dev/null && command -v psql > /dev/null &&
    perl -MDBD::Pg -e 1 2> /dev/null; then
    echo "Through $(sqitch --version)"
    if [ "$schema" != app_jobs ]; then
        "${PYTHON:-python3}" -I python-client/src/app_jobs/_render.py "$schema" . "build/$schema"
        cd "build/$schema"
    fi
    case $command in
        deploy) exec sqitch deploy ${to:+--to-change "$to"} "$target" ;;
        revert) exec sqitch revert -y ${to:+--to-change "$to"} "$target" ;;
        *) exec sqitch "$command" "$target" ;;
    esac
fi

echo "Through the migrator of app-jobs"
make --silent --no-print-directory .venv/demo
[ "$command" != deploy ] || command=migrate
exec .venv/bin/python -m app_jobs.migrate "$command" --schema "$schema" ${to:+--to "$to"}

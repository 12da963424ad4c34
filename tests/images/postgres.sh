#!/bin/sh
# As the official image has it, as far as tests ask: a first start makes the cluster of POSTGRES_USER, POSTGRES_PASSWORD
# and POSTGRES_DB, with POSTGRES_HOST_AUTH_METHOD for those who come by the network.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    user="${POSTGRES_USER:-postgres}"
    method="${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
    initdb --username="$user" --auth=trust --encoding=UTF8 --locale=C.UTF-8 > /dev/null
    for database in all replication; do
        echo "host $database all all $method" >> "$PGDATA/pg_hba.conf"
    done
    pg_ctl --wait --options="-c listen_addresses=''" start > /dev/null
    [ -z "${POSTGRES_PASSWORD:-}" ] || psql --quiet --username="$user" --dbname=postgres \
        --set=password="$POSTGRES_PASSWORD" --set=user="$user" << 'SQL'
ALTER ROLE :"user" PASSWORD :'password';
SQL
    [ "${POSTGRES_DB:-$user}" = postgres ] || createdb --username="$user" "${POSTGRES_DB:-$user}"
    pg_ctl --wait stop > /dev/null
fi
exec "$@" -c listen_addresses='*'

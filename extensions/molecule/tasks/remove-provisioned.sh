#!/bin/sh
# remove-provisioned.sh NAME...: removes from a host what was provisioned for stanzas and clusters of these names. What one run of a
# scenario leaves would make the next report that nothing changed.
for name in "$@"; do
    for unit in $(systemctl list-unit-files --no-legend "dbre-backup-$name-*" "dbre-metrics-$name.*" | cut -d' ' -f1); do
        systemctl disable --now "$unit"
    done
    systemctl reset-failed "dbre-backup-$name-*" 2>/dev/null
    for major in 13 15 17; do
        systemctl unmask "postgresql@$major-$name" 2>/dev/null # a failover leaves an old primary so
        [ ! -e "/etc/postgresql/$major/$name/postgresql.conf" ] || pg_dropcluster --stop "$major" "$name"
        rm -rf "/etc/postgresql/$major/$name"
    done
    rm -rf /etc/systemd/system/dbre-backup-"$name"-* /etc/systemd/system/dbre-metrics-"$name".* "/var/lib/pgbackrest-$name" /etc/pgbackrest-"$name"*
    rm -f /var/lib/dbre-recovery/*"$name"* /var/lib/dbre-recovery/metrics/*"$name"*
done
systemctl disable --now pgbackrest 2>/dev/null
rm -rf /etc/pgbackrest/tls /etc/systemd/system/pgbackrest.service /usr/local/lib/dbre-recovery/pgbackrest /usr/local/lib/dbre-recovery/metrics
systemctl daemon-reload

#!/bin/sh
# Removes the cluster, timers, servers and files of this scenario from a host.
for unit in $(systemctl list-unit-files --no-legend 'dbre-backup-away-*' pgbackrest.service | cut -d' ' -f1); do
    systemctl disable --now "$unit"
done
systemctl reset-failed 'dbre-backup-away-*' 2>/dev/null
for major in 13 17; do
    [ ! -e /etc/postgresql/$major/away ] || pg_dropcluster --stop $major away
done
rm -rf /etc/pgbackrest-away* /etc/pgbackrest/tls /etc/systemd/system/dbre-backup-away-* /etc/systemd/system/pgbackrest.service \
    /usr/local/lib/dbre-recovery /var/lib/dbre-recovery /var/lib/pgbackrest-away /var/lib/postgresql/away-restored
systemctl daemon-reload

#!/usr/bin/env bash
# Exit 0 if the server in this container is ready to serve: GET /readyz answers 200. No curl needed.
# TEMPERA_METRICS_PORT: where /readyz is, if not on 9464.
set -u
exec 3<>"/dev/tcp/127.0.0.1/${TEMPERA_METRICS_PORT:-9464}" || exit 1
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
IFS=' ' read -r -t 4 _ code _ <&3 || exit 1
[ "$code" = 200 ]

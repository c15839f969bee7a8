#!/bin/bash
# Whether the server is ready, with nothing but bash: the image has no curl. bash speaks no TLS, so it asks where probes
# are answered without, if the server has such an address.
set -euo pipefail
address="${CANET_PROBE_LISTEN:-${CANET_LISTEN:-127.0.0.1:8080}}"
exec 3<>"/dev/tcp/127.0.0.1/${address##*:}"
printf 'GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n' >&3
read -r -t 5 _ status _ <&3
[[ $status == 200 ]]

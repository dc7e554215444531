#!/bin/sh
# Reads one list from a protected API. Neither key nor token is here: HOLDFAST_EGRESS_SOCKET is from `holdfast exec`.
set -eu

: "${HOLDFAST_EGRESS_SOCKET:?run this job below holdfast exec}"

# The Host is the name of the target in the policy; the agent speaks TLS to it.
curl --fail-with-body --silent --show-error --unix-socket "$HOLDFAST_EGRESS_SOCKET" "http://orders${1:-/v1/items}"

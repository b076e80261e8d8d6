#!/usr/bin/env bash
# run.sh SCRIPT.py [ARGUMENTS]: a script of this folder with the tools it needs. Without arguments: only fetches the tools.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/tools.sh"
deploy_tools
[ $# -gt 0 ] || exit 0
export HELM
exec python3 "$@"

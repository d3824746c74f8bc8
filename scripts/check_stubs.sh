#!/usr/bin/env bash
# Fail if the committed stubs differ from what the .proto file generates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
scripts/generate_stubs.sh "$fresh"

status=0
while IFS= read -r -d '' stub; do
  if ! diff -u "proto/${stub#"$fresh"/}" "$stub"; then status=1; fi
done < <(find "$fresh" -name '*_pb2*.py*' -type f -print0)
if [ "$status" -ne 0 ]; then
  echo "The committed stubs do not match proto/mier_proto/v1/*.proto: run 'make proto' and commit the result." >&2
fi
exit "$status"

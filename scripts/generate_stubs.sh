#!/usr/bin/env bash
# Generate the Python stubs of the protocol (messages, gRPC services, type information) into a folder.
# Usage: scripts/generate_stubs.sh OUT_DIR      ("proto" writes them beside the .proto file, where they are committed)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out="${1:?usage: scripts/generate_stubs.sh OUT_DIR}"
mkdir -p "$out"
python -m grpc_tools.protoc -I proto \
  --python_out="$out" --mypy_out="$out" \
  --grpc_python_out="$out" --mypy_grpc_out="$out" \
  proto/mier_proto/v1/*.proto

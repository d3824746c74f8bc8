#!/bin/sh
# Regenerates the committed stubs from the schema:  proto/generate.sh [OUTPUT_DIRECTORY]
# Without an argument it writes beside the schema (`make proto`); with one it writes there, so that `make check` can
# compare:  proto/generate.sh --check  regenerates into a temporary folder and fails on any difference.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python}

generate() {
    googleapis=$("$python" -c 'import pathlib, google.rpc.status_pb2 as m; print(pathlib.Path(m.__file__).parents[2])')
    "$python" -m grpc_tools.protoc -I "$here" -I "$googleapis" \
        --python_out="$1" --grpc_python_out="$1" --mypy_out="$1" --mypy_grpc_out="$1" \
        "$here/mier_proto/v1/adaptation.proto"
}

if [ "${1:-}" = "--check" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    generate "$scratch"
    for name in adaptation_pb2.py adaptation_pb2.pyi adaptation_pb2_grpc.py adaptation_pb2_grpc.pyi; do
        diff -u "$here/mier_proto/v1/$name" "$scratch/mier_proto/v1/$name" || {
            echo "proto/mier_proto/v1/$name does not match adaptation.proto: run 'make proto' and commit the result" >&2
            exit 1
        }
    done
else
    generate "${1:-$here}"
fi

#!/bin/sh
# Measures parity with transformers on every fixture and writes docs/parity.md.
set -eu
cd "$(dirname "$0")/.."
PEARL_WRITE_PARITY=1 cargo test --profile "${PROFILE:-release}" --test it the_table_of_parity

#!/usr/bin/env bash
# Makes stand-ins for the images that tests need, out of Debian's packages, where no registry of images can be reached:
# outhaul-test/python, /postgres, /redis and /prometheus. Needs root, debootstrap and a Docker daemon.
# They are not the official images: the programs are Debian's, and the entry points are written for these tests.
#   tests/images/make.sh && OUTHAUL_TEST_IMAGES=outhaul-test pytest -m long tests/acceptance/test_container.py
set -euo pipefail
cd "$(dirname "$0")"

suite=trixie
if [[ -z "$(docker images --quiet "outhaul-test/debian:$suite")" ]]; then
    root="${1:-}" # a tree that debootstrap has made already
    if [[ -z "$root" ]]; then
        root="$(mktemp -d)"
        trap 'rm -rf "$root"' EXIT
        debootstrap --variant=minbase "$suite" "$root" > /dev/null
    fi
    tar --create --directory "$root" --exclude=./var/cache/apt/archives/*.deb . | docker import - "outhaul-test/debian:$suite"
fi
for name in python postgres redis prometheus; do
    docker build --network host --quiet --tag "outhaul-test/$name" --target "$name" .
done

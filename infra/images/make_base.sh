#!/bin/bash
# Makes the image strandloop-base:bookworm from Debian's archive, for machines that reach no image registry; needs
# root and Debian's package debootstrap. Then: BASE_IMAGE=strandloop-base:bookworm
set -euo pipefail

root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
    "$root"/usr/share/{doc,info,locale,man}/* "$root"/var/log/*
tar --create --directory="$root" . | ${DOCKER:-docker} import - strandloop-base:bookworm

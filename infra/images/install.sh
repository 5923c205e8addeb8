# Sourced by the steps of the Dockerfile that download. Everything here leaves nothing behind but what was asked for.
# With a build secret `ca_bundle`, apt, pip and uv trust the certificates in it, and only while they run.
set -eu
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -s /run/secrets/ca_bundle ]; then
    export PIP_CERT=/run/secrets/ca_bundle SSL_CERT_FILE=/run/secrets/ca_bundle UV_SYSTEM_CERTS=1
    export APT_CONFIG=/dev/shm/apt.conf
    echo 'Acquire::https::CaInfo "/run/secrets/ca_bundle";' >"$APT_CONFIG"
fi

# without_documentation: of packages installed from here on; the slim images of Debian do the same.
without_documentation() {
    cat >/etc/dpkg/dpkg.cfg.d/without-documentation <<'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
}

# debian_packages NAME...
debian_packages() {
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache
}

# python_environment DIRECTORY OPTIONS-OF-PIP-INSTALL...: Debian's Python with packages, without their own tests and
# PyTorch's headers, and compiled ahead, since the user who runs it cannot write there.
python_environment() {
    directory=$1
    shift
    /opt/uv/bin/uv venv --quiet --python /usr/bin/python3 "$directory"
    UV_DEFAULT_INDEX=$PIP_INDEX_URL UV_INDEX=${TORCH_INDEX_URL:-} UV_INDEX_STRATEGY=unsafe-best-match \
        /opt/uv/bin/uv pip install --link-mode copy --find-links /wheels --python "$directory/bin/python" "$@"
    packages=$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    find "$packages" -type d -name tests -prune -exec rm -r {} +
    rm -rf "$packages"/torch/include "$packages"/torch/test "$packages"/torch/bin/*test*
    "$directory/bin/python" -m compileall -q -j 0 "$packages" || true # some files are of other versions of Python
}

#!/usr/bin/env bash
# docker/test.sh [cpu|cuda|rocm]...: build the images as root, without an engine, a registry or a GPU, and check them.
#
# Needs buildah and debootstrap (rocm: mmdebstrap), and a Python 3.12 with a prefix of its own: PYTHON, or pyenv's or
# uv's. The bases are Debian's: bookworm with that Python, which is what the default base is, and trixie with its HIP,
# where the ROCm image is compiled for and goes no further. The index is pip's, from PIP_INDEX_URL or PIP_CONFIG_FILE, the
# certificates SSL_CERT_FILE's; DEBIAN_MIRROR is debootstrap's. KEEP=FOLDER keeps bases, store and images for the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
images=("${@:-cpu}")
[ $# -gt 0 ] || images=(cpu cuda rocm)

fail() {
    printf 'docker/test.sh: %s\n' "$1" >&2
    exit "${2:-6}"
}
say() { printf '== %s\n' "$*"; }

[ "$(id -u)" = 0 ] || fail 'needs root, for chroots' 7
tools=(buildah debootstrap)
[[ " ${images[*]} " != *' rocm '* ]] || tools+=(mmdebstrap)
for tool in "${tools[@]}"; do
    command -v "$tool" >/dev/null || fail "$tool is not installed: apt-get install buildah debootstrap mmdebstrap" 7
done

work=${KEEP:-$(mktemp -d /var/tmp/patchwheel-images.XXXXXX)}
mkdir -p "$work/tmp"
export TMPDIR=$work/tmp
store=$TMPDIR/buildah-cache/patchwheel
b() { nice buildah --root "$work/root" --runroot "$work/run" "$@"; }
finish() {
    b rm --all >/dev/null 2>&1 || true
    if [ -z "${KEEP:-}" ]; then
        b rmi --all --force >/dev/null 2>&1 || true
        umount "$work/root/overlay" 2>/dev/null || true
        rm -rf "$work"
    fi
}
trap finish EXIT

revision=$(git rev-parse HEAD)
# What must not get into a layer.
mark=SECRET$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
{ cat "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"; echo "# $mark"; } >"$work/tmp/ca"
{ [ -z "${PIP_CONFIG_FILE:-}" ] || cat "$PIP_CONFIG_FILE"; echo "# $mark"; } >"$work/tmp/pip"

# python_into ROOT: copy a Python to /usr/local, where the official images have it.
python_into() {
    local python prefix=''
    for python in "${PYTHON:-python3.12}" ~/.pyenv/versions/3.12.*/bin/python3.12 ~/.local/share/uv/python/cpython-3.12*/bin/python3.12; do
        prefix=$("$python" -c 'import sys; print(sys.base_prefix)' 2>/dev/null) && [ "$prefix" != /usr ] && break
        prefix=''
    done
    [ -n "$prefix" ] || fail 'no Python 3.12 with a prefix of its own was found; set PYTHON' 7
    cp -a "$prefix/bin/python3.12" "$1/usr/local/bin/"
    cp -a "$prefix"/lib/libpython3* "$1/usr/local/lib/" 2>/dev/null || true
    tar -C "$prefix" -c --exclude=site-packages --exclude=__pycache__ --exclude=test lib/python3.12 include/python3.12 |
        tar -C "$1/usr/local" -x
    mkdir -p "$1/usr/local/lib/python3.12/site-packages"
    chroot "$1" ldconfig
    chroot "$1" python3.12 -c 'import bz2, ctypes, lzma, sqlite3, ssl, zlib' || fail "$prefix does not run in the base" 7
}

# base NAME: make the image localhost/NAME of Debian, where it is not there from an earlier run.
base() {
    local root=$work/$1 container libraries=ca-certificates,libexpat1,libffi8,libreadline8,libsqlite3-0
    ! b inspect "localhost/$1" >/dev/null 2>&1 || return 0
    say "making the base $1"
    case $1 in
    bookworm) debootstrap --variant=minbase --include="$libraries,libssl3" bookworm "$root" ${DEBIAN_MIRROR:-} ;;
    hip)
        docker/hip-base "$root"
        chroot "$root" sh -c "apt-get -q update && apt-get -q install -y --no-install-recommends libsqlite3-0 libreadline8t64"
        ;;
    esac >"$work/tmp/base.log" 2>&1 || { tail "$work/tmp/base.log" >&2; fail "the base $1 cannot be made" 7; }
    python_into "$root"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb
    container=$(b from scratch)
    tar -C "$root" -c --exclude='./dev/*' . >"$work/tmp/base.tar"
    rm -rf "$root"
    b add --quiet "$container" "$work/tmp/base.tar" / >/dev/null
    b commit --quiet --rm "$container" "localhost/$1" >/dev/null
    rm "$work/tmp/base.tar"
}

# bare: the base without its Python.
bare() {
    local container
    container=$(b from localhost/bookworm)
    rm "$(b mount "$container")/usr/local/bin/python3.12"
    b commit --quiet --rm "$container" localhost/bare >/dev/null
}

# bud IMAGE BASE TAG [ARGUMENTS]: build docker/IMAGE.Dockerfile, as docker/README.md says, with a given base.
bud() {
    local image=$1 base=$2 tag=$3
    shift 3
    b bud --isolation chroot --pull-never --format docker --timestamp 1700000000 --file "docker/$image.Dockerfile" \
        --secret "id=ca,src=$work/tmp/ca" --secret "id=pip,src=$work/tmp/pip" --tag "localhost/$tag" \
        --build-arg "BASE_IMAGE=localhost/$base" --build-arg "PIP_INDEX_URL=${PIP_INDEX_URL:-}" \
        --build-arg "REVISION=$revision" --build-arg "LOCK_SHA256=$(sha256sum forks.lock | cut -c1-64)" "$@" . \
        >"$work/tmp/$tag.log" 2>&1
}
must_bud() { bud "$@" || { tail -n 40 "$work/tmp/$3.log" >&2; fail "docker/$1.Dockerfile does not build on $2" 5; }; }
# refused WHAT ARGUMENTS...: a build that has to fail, and to name WHAT.
refused() {
    local what=$1
    shift
    ! bud "$@" || fail "a build that lacks $what went through"
    grep -qF -- "$what" "$work/tmp/$3.log" || { tail "$work/tmp/$3.log" >&2; fail "the failure does not name $what"; }
    say "refused, by name: $what"
}

# compilers FOLDER: what there could compile, assemble or link.
compilers() {
    find "$1" -xdev ! -type d -perm /111 -path '*bin/*' \( -name '*gcc*' -o -name '*g++*' -o -name 'cc1*' -o -name '*clang*' -o \
        -name 'hipcc*' -o -name nvcc -o -name cicc -o -name ptxas -o -name '*-as' -o -name as -o -name '*ld.*' -o -name ld \) \
        ! -name ld.so -printf '/%P\n'
}
# leaking IMAGE: whether the mark is in a layer, or in what describes the image.
leaking() {
    local found=1
    rm -rf "$work/tmp/pushed"
    b push --quiet --disable-compression "localhost/$1" "dir:$work/tmp/pushed" >/dev/null
    ! grep -rqaF -- "$mark" "$work/tmp/pushed" || found=0
    rm -rf "$work/tmp/pushed"
    return $found
}
config() { b inspect --type image --format "{{.Docker.Config.$2}}" "localhost/$1"; }
# id_of IMAGE: its id as an OCI image; Docker's format, which alone has health checks, notes the building container's name.
id_of() {
    rm -rf "$work/tmp/pushed"
    b push --quiet --disable-compression --format oci "localhost/$1" "dir:$work/tmp/pushed" >/dev/null
    sed -n 's/.*"config":{[^}]*"digest":"\([^"]*\)".*/\1/p' "$work/tmp/pushed/manifest.json"
    rm -rf "$work/tmp/pushed"
}

# controls BASE: the checks for compilers and for leaks find what they look for.
controls() {
    local container mounted
    container=$(b from "localhost/$1")
    mounted=$(b mount "$container")
    touch "$mounted/usr/bin/x86_64-linux-gnu-gcc-12"
    chmod +x "$mounted/usr/bin/x86_64-linux-gnu-gcc-12"
    [ -n "$(compilers "$mounted")" ] || fail 'the check for compilers finds none where there is one'
    cp "$work/tmp/pip" "$mounted/etc/pip.conf"
    b commit --quiet --rm "$container" localhost/leaking >/dev/null
    leaking leaking || fail 'the check for secrets finds none where there is one'
    b rmi --force localhost/leaking >/dev/null
}

# check_image IMAGE: what a user runs, and must not find there.
check_image() {
    local image=$1 container mounted said
    container=$(b from "localhost/$image")
    mounted=$(b mount "$container")
    in_it() { b run --isolation chroot "$container" -- "$@"; }

    [ "$(in_it id -u)" = 10001 ] || fail "$image: runs as $(in_it id)"
    [ "$(config "$image" User)" = 10001:10001 ] || fail "$image: has no user"
    in_it sh -c '! touch /opt/forks/x 2>/dev/null && ! touch /usr/x 2>/dev/null' || fail "$image: its user can change what is installed"
    [ -z "$(compilers "$mounted")" ] || fail "$image: has $(compilers "$mounted")"
    [ "$(config "$image" 'Labels')" != 'map[]' ] || fail "$image: has no labels"
    [[ $(config "$image" Labels) == *"org.opencontainers.image.revision:$revision"* ]] || fail "$image: the label lacks the revision"
    [[ $(config "$image" Labels) == *"patchwheel.lock.sha256:$(sha256sum forks.lock | cut -c1-64)"* ]] || fail "$image: the label lacks the lock"
    [[ $(config "$image" Healthcheck.Test) == *"/opt/patchwheel/entrypoint check"* ]] || fail "$image: has no health check"
    in_it /opt/patchwheel/entrypoint check || fail "$image: is not healthy"
    said=$(in_it /opt/patchwheel/entrypoint demo --xp numpy --scale 0.1) || fail "$image: the demo fails"
    grep -q 'numpy on' <<<"$said" || fail "$image: the demo says $said"
    [ "$(in_it /opt/patchwheel/entrypoint sh -c 'echo shell')" = shell ] || fail "$image: gives no shell"
    if [ "$image" = cuda ]; then
        # Without a GPU it has to say so, and not that something is missing.
        ! said=$(in_it /opt/patchwheel/entrypoint 2>&1) || fail "$image: the demo runs without a GPU"
        grep -qi 'driver\|gpu' <<<"$said" || fail "$image: without a GPU it says $said"
        in_it /opt/patchwheel/entrypoint python -c 'import glob, sys
found = [p for n in ("cublas", "cusolver", "cusparse", "nvrtc") for p in glob.glob(f"/opt/forks/lib/*/site-packages/nvidia/cu*/lib/lib{n}.so.*")]
sys.exit(len(found) < 4 or None)' || fail "$image: lacks libraries of CUDA"
    fi
    rm -rf "$mounted"/opt/patchwheel/environments/*/lib/python3*/site-packages/numpy-*.dist-info
    ! said=$(in_it /opt/patchwheel/entrypoint check 2>&1) || fail "$image: is healthy without numpy"
    grep -q numpy <<<"$said" || fail "$image: the health check does not name numpy: $said"
    b rm "$container" >/dev/null
    ! leaking "$image" || fail "$image: a secret is in a layer"
    say "$image: user 10001, no compiler, no secret, labels, healthy, demo"
}

for image in "${images[@]}"; do
    room=$(df -Pm "$work" | awk 'NR == 2 { print $4 }')
    [ "$image" != cuda ] || [ "$room" -ge 20000 ] ||
        fail "cuda takes 20 GB of $work while it is built, and $room MB are free: KEEP names another folder" 7
    start=$SECONDS
    case $image in
    cpu | cuda)
        base bookworm
        # What a base or a user leaves out is named.
        bare
        refused python3.12 "$image" bare refused
        refused "LOCK_SHA256 is ''" "$image" bookworm refused --build-arg LOCK_SHA256=
        refused "forks.lock's" "$image" bookworm refused --build-arg "LOCK_SHA256=$(printf '%064d' 0)"
        refused 'REVISION is not given' "$image" bookworm refused --build-arg REVISION=
        start=$SECONDS
        say "building $image"
        must_bud "$image" bookworm "$image" --no-cache
        say "$image: built in $((SECONDS - start)) s, $(b images --format '{{.Size}}' "localhost/$image")"
        controls bookworm
        check_image "$image"
        # The environment is made again, for the first image the wheels too; downloads are not.
        rm -rf "$store/environments"
        [ "$image" != cpu ] || rm -rf "$store/wheels"
        first=$(id_of "$image") start=$SECONDS
        must_bud "$image" bookworm "$image" --no-cache
        [ -n "$first" ] && [ "$(id_of "$image")" = "$first" ] || fail "$image: a second build is another image: $first, $(id_of "$image")"
        say "$image: the same image, $first, in $((SECONDS - start)) s"
        ;;
    rocm)
        base hip
        say 'compiling rocm: against HIP 5.7 of Debian, which has no libraries of ROCm to run with; the image is not made'
        refused HCC_AMDGPU_TARGET rocm hip refused --target wheels
        base bookworm
        refused hipblas rocm bookworm refused --target wheels --build-arg HCC_AMDGPU_TARGET=gfx90a
        start=$SECONDS
        must_bud rocm hip rocm-wheels --no-cache --target wheels --build-arg HCC_AMDGPU_TARGET=gfx90a
        say "rocm: compiled in $((SECONDS - start)) s"
        ;;
    *) fail "no image is called $image: cpu, cuda or rocm" 2 ;;
    esac
done

say 'all as it must be'

#!/bin/sh
# Makes the image `web` as an OCI image layout from Debian's busybox-static: one layer, no compression,
# no time stamps. The same busybox gives the same bytes, wherever and whenever it is built.
#
#   examples/web/build.sh DIR        # DIR must not exist yet
set -eu

out=${1:?usage: build.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
busybox=$(command -v busybox) || { echo "busybox is missing: apt-get install busybox-static" >&2; exit 1; }
case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) arch=$(uname -m) ;;
esac

mkdir "$out"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/dev" "$root/etc" "$root/proc" "$root/sys" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
cp "$here/serve" "$root/bin/serve"
for name in cat cp echo env false grep head hostname httpd id kill ls mkdir ps rm sh sleep true wc; do
  ln -s busybox "$root/bin/$name"
done
chmod 755 "$root" "$root"/* "$root/bin/busybox" "$root/bin/serve"
chmod 1777 "$root/tmp"

# Puts standard input under its own digest; prints digest and size.
blob() {
  cat >"$out/blob"
  digest=$(sha256sum "$out/blob" | cut -d ' ' -f 1)
  size=$(wc -c <"$out/blob")
  mkdir -p "$out/blobs/sha256"
  mv "$out/blob" "$out/blobs/sha256/$digest"
  echo "$digest $size"
}

set -- $(tar -C "$root" -c --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 . | blob)
layer=$1 layer_size=$2

set -- $(printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/bin/serve"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$arch" "$layer" | blob)
config=$1 config_size=$2

oci=application/vnd.oci.image
set -- $(printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"%s.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
  $oci $oci "$config" "$config_size" $oci "$layer" "$layer_size" | blob)

printf '{"schemaVersion":2,"mediaType":"%s.index.v1+json","manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"web"}}]}' \
  $oci $oci "$1" "$2" >"$out/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
echo "web: sha256:$1"

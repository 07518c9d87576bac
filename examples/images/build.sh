#!/usr/bin/env bash
# Packs programs from Debian's own packages into OCI archives: real images for whoever has no registry at hand.
#
#   examples/images/build.sh DIR [nginx] [redis] [postgres] [spark]
#
# writes DIR/NAME.tar for each, to be brought in by `rialto image import DIR/NAME.tar`. All stand on one layer, a minimal Debian, which
# is kept in DIR/layout: another run with more names adds to it. Without names it makes the first three; spark, of 600 MB, is PyPI's
# pyspark on Debian's Java. Needs root, debootstrap, umoci and skopeo, and Python's pip for spark.
set -euo pipefail

suite=bookworm
usage() { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
(($# >= 1)) || usage
dir=$1
shift
names=("$@")
(($#)) || names=(nginx redis postgres)
for name in "${names[@]}"; do
  [[ $name =~ ^(nginx|redis|postgres|spark)$ ]] || { echo "build: no such image: $name (nginx, redis, postgres or spark)" >&2; exit 2; }
done
((EUID == 0)) || { echo "build: only root can make a root" >&2; exit 1; }
for tool in debootstrap umoci skopeo; do
  command -v "$tool" >/dev/null || { echo "build: $tool is missing: apt-get install $tool" >&2; exit 1; }
done

mkdir -p "$dir"
dir=$(realpath "$dir")
layout=$dir/layout
work=$(mktemp -d "$dir/build.XXXXXX")
mounted=()
finish() {
  for at in "${mounted[@]}"; do umount -l "$at" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

# What nobody reads in a container.
slim() {
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/{doc,man,locale,info}/* "$1"/var/log/*.log "$1"/etc/resolv.conf
  rm -f "$1"/usr/sbin/policy-rc.d
}

# Exit code 3: Debian's archive, or PyPI, does not give what is wanted, or cannot be reached.
unfetched() {
  tail "$work/log" >&2
  exit 3
}

base() {
  umoci init --layout "$layout"
  umoci new --image "$layout:base"
  umoci unpack --image "$layout:base" "$work/base"
  debootstrap --variant=minbase "$suite" "$work/base/rootfs" >"$work/log" 2>&1 || unfetched
  slim "$work/base/rootfs"
  umoci repack --image "$layout:base" "$work/base"
  rm -rf "$work/base"
}

# Installs packages in an unpacked image, as in a machine whose services do not start.
install() {
  local root=$1
  shift
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  cp -L /etc/apt/sources.list "$root/etc/apt/" 2>/dev/null || true
  cp -rL /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/apt/auth.conf.d "$root/etc/apt/" 2>/dev/null || true
  mount -t proc proc "$root/proc"
  mounted+=("$root/proc")
  DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c \
    "apt-get update -qq && apt-get install -y -qq --no-install-recommends $*" >"$work/log" 2>&1 || unfetched
  umount "$root/proc"
}

image() {
  local name=$1 root=$work/$1/rootfs
  umoci unpack --image "$layout:base" "$work/$name"
  case $name in
    nginx)
      install "$root" nginx-light
      # One process in front, and its logs where a container's belong.
      ln -sf /dev/stdout "$root/var/log/nginx/access.log"
      ln -sf /dev/stderr "$root/var/log/nginx/error.log"
      config=(--config.cmd nginx --config.cmd -g --config.cmd 'daemon off;' --config.exposedports 80/tcp --config.stopsignal SIGQUIT)
      ;;
    redis)
      install "$root" redis-server
      mkdir -p "$root/data"
      chroot "$root" chown redis:redis /data
      config=(--config.cmd redis-server --config.cmd --bind --config.cmd '0.0.0.0' --config.cmd --protected-mode --config.cmd no
        --config.user redis --config.workingdir /data --config.volume /data --config.exposedports 6379/tcp)
      ;;
    postgres)
      install "$root" postgresql
      rm -rf "$root"/var/lib/postgresql/*/main
      mkdir -p "$root/var/lib/postgresql/data"
      chroot "$root" chown postgres:postgres /var/lib/postgresql/data

      cp "$here/postgres-start" "$root/usr/local/bin/"
      config=(--config.cmd postgres-start --config.user postgres --config.exposedports 5432/tcp --config.stopsignal SIGINT
        --config.volume /var/lib/postgresql/data --config.env PGDATA=/var/lib/postgresql/data)
      ;;
    spark)
      install "$root" openjdk-17-jre-headless python3 procps
      python3 -m pip download --quiet --no-deps --dest "$work" pyspark==3.5.5 >"$work/log" 2>&1 || unfetched
      mkdir -p "$root/opt/spark/python/lib"
      # What its own installer would put beside the Python package, and no more.
      tar -xzf "$work"/pyspark-*.tar.gz -C "$root/opt/spark" --strip-components=2 --wildcards '*/deps/bin' '*/deps/jars'
      tar -xzf "$work"/pyspark-*.tar.gz -C "$root/opt/spark/python" --strip-components=1 --wildcards '*/pyspark' '*/lib/*.zip'
      rm -f "$work"/pyspark-*.tar.gz
      chroot "$root" useradd --create-home spark
      config=(--config.user spark --config.workingdir /home/spark --config.env SPARK_HOME=/opt/spark
        --config.env PYTHONPATH="/opt/spark/python:$(cd "$root" && printf /%s opt/spark/python/lib/py4j-*.zip)"
        --config.env PYSPARK_PYTHON=python3 --config.env PATH=/opt/spark/bin:/usr/local/bin:/usr/bin:/bin)
      ;;
  esac
  slim "$root"
  umoci repack --image "$layout:$name" "$work/$name"
  umoci config --image "$layout:$name" "${config[@]}"
  rm -rf "${work:?}/$name" "$dir/$name.tar"
  skopeo copy -q "oci:$layout:$name" "oci-archive:$dir/$name.tar:$name:latest"
  echo "$dir/$name.tar"
}

here=$(dirname "$(realpath "$0")")
grep -x base >/dev/null < <(umoci ls --layout "$layout" 2>/dev/null) || { rm -rf "$layout"; base; }
for name in "${names[@]}"; do image "$name"; done

# Run inside new user, network, mount and process namespaces: mounts what a device has and starts adbd.
# $1: the device's root, $2: qemu-aarch64, $3: the core, $4: kilobytes of space below /data.
set -eu
ip link set lo up
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
# P keeps the program's own name (busybox is called by it), F opens qemu now, outside the root.
printf '%s' ":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$2:PF" \
    > /proc/sys/fs/binfmt_misc/register
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/dev"
for name in null zero random urandom; do
    touch "$1/dev/$name"
    mount --bind "/dev/$name" "$1/dev/$name"
done
mount -t tmpfs -o "size=${4}k" tmpfs "$1/data"
mkdir -p "$1/data/local/tmp"
env -i QEMU_CPU="$3" PATH=/usr/bin:/usr/sbin chroot "$1" /usr/lib/android-sdk/platform-tools/adbd &
echo $! > "$1/data/adbd.pid"
wait $! || true
exec sleep 600  # unplugged: the namespace stays until the test has looked at what is left

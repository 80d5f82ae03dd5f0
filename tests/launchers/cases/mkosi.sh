# suites: sid
# log: -nic user,model=virtio-net-pci moved to passt
# mkosi vm: it runs QEMU in a sandbox that has no /etc/passwd, first with --version. The
# image is made already, so mkosi only boots it.
mkdir /tmp/image
cd /tmp/image || exit
cp /srv/autopkgtest.initrd image.cpio
cp /srv/kernel image.vmlinuz
ln -s image.cpio image
cat >mkosi.conf <<CONF
[Distribution]
Distribution=debian
Release=sid
[Output]
Format=cpio
Output=image
CompressOutput=no
[Build]
$([[ $QEMU == /usr/bin/* ]] || echo "ExtraSearchPaths=${QEMU%/*}")
[Runtime]
Firmware=linux
Console=headless
KVM=no
CPUs=1
RAM=512M
RuntimeNetwork=user
KernelCommandLineExtra=nl.fetch=http://10.0.2.2:8000/
CONF
mkosi vm -- -serial file:/tmp/image/console -pidfile /tmp/image/pid
echo "mkosi: $?"
grep -o 'PAGE.*' console | tr -d '\r'

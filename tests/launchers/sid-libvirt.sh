# libvirt's session driver with the stand-in as emulator: it asks QEMU by QMP with
# -daemonize, then gives the guest's monitor and pid file by descriptors.
if ((EUID == 0)); then
	grep -q '^guest:' /etc/passwd || echo 'guest:x:1000:1000::/tmp/home:/bin/sh' >>/etc/passwd
	grep -q '^guest:' /etc/group || echo 'guest:x:1000:' >>/etc/group
	install -d -m 700 -o 1000 -g 1000 /run/user/1000 /tmp/home
	chmod 1777 /tmp
	exec setpriv --reuid=1000 --regid=1000 --clear-groups \
		env HOME=/tmp/home XDG_RUNTIME_DIR=/run/user/1000 bash "$0"
fi
mkdir -p /tmp/home/.config/libvirt
# without the daemon of libvirt's logs
echo 'stdio_handler = "file"' >/tmp/home/.config/libvirt/qemu.conf
cat >/tmp/guest.xml <<XML
<domain type='qemu'>
  <name>guest</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/srv/kernel</kernel>
    <initrd>/srv/autopkgtest.initrd</initrd>
    <cmdline>console=ttyS0 quiet nl.fetch=http://10.0.2.2:8000/</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>$QEMU</emulator>
    <interface type='user'><model type='virtio'/></interface>
    <serial type='file'><source path='/tmp/console'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
XML
libvirtd --daemon || exit
virsh -q -c qemu:///session create /tmp/guest.xml || exit
# the pid file has QEMU's own number: libvirt reads the processor time there
pid=$(cat $XDG_RUNTIME_DIR/libvirt/qemu/run/guest.pid)
readlink "/proc/$pid/exe"
virsh -q -c qemu:///session domstats --cpu-total guest | grep -o 'cpu.time=[1-9]' | tr -d 1-9
# libvirt gives the emulator no NETLAUNCH_WRAP_LOG
grep -ho '"backend":[^,]*' /run/user/1000/netlaunch/*/launch.json 2>/dev/null >>/var/tmp/wrap.log
for ((i = 0; i < 600; i++)); do
	virsh -q -c qemu:///session domstate guest >/dev/null 2>&1 || break
	sleep 0.2
done
grep -o 'PAGE.*' /tmp/console | tr -d '\r'
kill "$(cat $XDG_RUNTIME_DIR/libvirt/libvirtd.pid)"

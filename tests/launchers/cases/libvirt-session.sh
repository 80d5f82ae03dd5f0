# suites: bookworm sid
# log: -netdev {"type":"user","id":"hostnet0"} moved to passt
# libvirt's session driver as an ordinary user, with the stand-in as emulator: it asks
# QEMU by QMP with -daemonize, then gives the guest's monitor and pid file by descriptors.
if ((EUID == 0)); then
	grep -q '^guest:' /etc/passwd || echo 'guest:x:1000:1000::/tmp/home:/bin/sh' >>/etc/passwd
	grep -q '^guest:' /etc/group || echo 'guest:x:1000:' >>/etc/group
	install -d -m 700 -o 1000 -g 1000 /run/user/1000 /tmp/home
	chmod 1777 /tmp
	exec setpriv --reuid=1000 --regid=1000 --clear-groups \
		env HOME=/tmp/home XDG_RUNTIME_DIR=/run/user/1000 bash "$0"
fi
mkdir -p /tmp/home/.config/{libvirt,netlaunch}
# without the daemon of libvirt's logs
echo 'stdio_handler = "file"' >/tmp/home/.config/libvirt/qemu.conf
# libvirt clears the environment of the emulator
printf '[wrap]\nlog = "%s"\n' "$NETLAUNCH_WRAP_LOG" >/tmp/home/.config/netlaunch/netlaunch.conf
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
    <interface type='user'>
      <mac address='52:54:00:12:34:56'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'><source path='/tmp/console'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
XML
guest() {
	virsh -q -c qemu:///session "$@" 2>&1
}
pid_file=$XDG_RUNTIME_DIR/libvirt/qemu/run/guest.pid
# the pid file has QEMU's own number: libvirt reads the processor time there, and sends signals
processes() {
	readlink "/proc/$(<"$pid_file")/exe"
	guest domstats --cpu-total guest | grep -o 'cpu.time=[1-9]' | tr -d 1-9
	guest domiflist guest | tr -s ' '
}
libvirtd --daemon || exit
guest define /tmp/guest.xml

# the guest ends by itself
guest start guest
processes
for ((i = 0; i < 600; i++)); do
	[[ $(guest domstate guest) == running ]] || break
	sleep 0.2
done
guest domstate --reason guest
grep -o 'PAGE.*' /tmp/console | tr -d '\r'
ls "$pid_file" 2>&1

# libvirt ends the guest
guest start guest
processes
guest suspend guest
guest domstate guest
guest resume guest
guest destroy guest
guest domstate --reason guest
ls "$pid_file" 2>&1
guest undefine guest
guest list --all
kill "$(<"$XDG_RUNTIME_DIR/libvirt/libvirtd.pid")"

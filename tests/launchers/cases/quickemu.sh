# suites: sid
# log: hostfwd=tcp::22220-:22,id=nic moved to passt
# quickemu: it writes QEMU's line to a script, starts it in the background and ends;
# the guest goes on.
cd /tmp || exit
qemu-img create -q -f qcow2 disk.qcow2 64M
truncate -s 1M boot.iso
cat >vm.conf <<CONF
guest_os="linux"
disk_img="disk.qcow2"
iso="boot.iso"
boot="legacy"
cpu_cores="1"
ram="1G"
CONF
# quickemu refuses a processor without SVM or VT-x, and asks lscpu for its vendor
mkdir bin
printf '#!/bin/sh\n/usr/bin/lscpu "$@" | sed "s/^\\(Vendor ID: *\\).*/\\1other/"\n' >bin/lscpu
chmod 755 bin/lscpu
PATH=$PWD/bin:$PATH
quickemu --vm vm.conf --display none --monitor none --serial none \
	--extra_args "-machine accel=tcg -cpu max -serial file:/tmp/console -kernel /srv/kernel \
-initrd /srv/autopkgtest.initrd -append nl.fetch=http://10.0.2.2:8000/" >quickemu.out
echo "quickemu: $?"
# without the process's number and the program's path
sed 's/ ([0-9]*)$//; s/ using [^ ]*//' quickemu.out
for ((i = 0; i < 100; i++)); do
	[[ ! -s vm.pid ]] || break
	sleep 0.2
done
pid=$(<vm.pid)
readlink "/proc/$pid/exe"
for ((i = 0; i < 600; i++)); do
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.2
done
grep -o 'PAGE.*' /tmp/console | tr -d '\r'

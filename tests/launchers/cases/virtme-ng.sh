# suites: sid
# log: -netdev user,id=n0 moved to passt
# virtme-ng: it asks QEMU for its version, and the initramfs is an inherited descriptor.
# The status is that of the command in the guest.
vng --run /boot/vmlinuz-* --root /srv/virtme-root --disable-kvm --force-9p --network user \
	--cpus 1 --memory 512M \
	--exec 'wget -qO- http://10.0.2.2:8000/; ip -4 -o address show eth0; exit 7'

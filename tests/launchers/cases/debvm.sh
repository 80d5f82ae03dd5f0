# suites: sid
# log: -netdev user,id=net0,hostfwd=tcp:127.0.0.1:8022-:22 moved to passt
# debvm: the kernel is an inherited descriptor. debvm-waitssh waits for the first words
# of the guest's SSH server.
cd /tmp || exit
debvm-run -s 8022 -i /srv/debvm.ext4 -- -snapshot -machine accel=tcg -cpu max -m 256 -smp 1 \
	-pidfile pid >console &
debvm-waitssh -t 80 8022
echo "debvm-waitssh: $?"
readlink "/proc/$(<pid)/exe"
ssh -q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p 8022 root@127.0.0.1 \
	'wget -qO- http://10.0.2.2:8000/; poweroff -f' </dev/null
wait $!
echo "debvm-run: $?"
ls pid 2>&1 || true # QEMU removed it

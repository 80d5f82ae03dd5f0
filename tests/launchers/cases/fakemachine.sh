# suites: sid
# log: -nic user,model=virtio-net-pci moved to passt
# fakemachine, which debos uses: it writes -nic user,model=virtio-net-pci and starts
# sid's own systemd over 9p.
fakemachine -b qemu -m 512 -- wget -qO- http://10.0.2.2:8000/

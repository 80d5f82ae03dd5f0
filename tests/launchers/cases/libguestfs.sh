# suites: sid
# log: runs without netlaunch
# libguestfs 1.60: it starts passt itself where there is one, so the stand-in must
# leave its lines alone.
export LIBGUESTFS_PATH=/srv/appliance LIBGUESTFS_BACKEND=direct LIBGUESTFS_MEMSIZE=512
export LIBGUESTFS_BACKEND_SETTINGS=force_tcg LIBGUESTFS_CACHEDIR=/tmp LIBGUESTFS_HV=$QEMU
guestfish --network scratch 1M : run : \
	debug sh 'wget -qO- http://169.254.2.2:8000/; ip -4 -o address show eth0'

# Starts and ends the test guest by the README's first example; installed and removed read this, and
# boot takes the words of the guest.

# guest_words SCRIPT: prints the words of a QEMU that runs SCRIPT in the test guest, one per line
guest_words() {
	echo qemu-system-x86_64
	# Linux panics if an emulated timer does not tick while the host is busy.
	bash /srv/tests/guest/qemu-args "$GUEST" - no_timer_check <<<"$1"
}

# start_guest: the guest serves one line on port 22 until it is ended
start_guest() {
	local -a words
	mapfile -t words < <(guest_words "serve_tcp 22 'the guest answers'; while :; do sleep 1; done")
	words+=(-nic user,model=virtio-net-pci)
	netlaunch -p 2222:22 -- "${words[@]}" >/tmp/console 2>/tmp/log </dev/null &
	launch=$!
	local end=$((SECONDS + 120))
	until grep -qs '^READY tcp' /tmp/console; do
		if ! kill -0 "$launch" 2>/dev/null || ((SECONDS > end)); then
			echo "the guest is not up after $((SECONDS - end + 120)) seconds:" >&2
			cat /tmp/log /tmp/console >&2
			return 1
		fi
		sleep 0.2
	done
}

# answer PORT: prints the line of the guest. Debian 12's passt takes a connection to the guest only
# with its first bytes.
answer() {
	# shellcheck disable=SC2016 # the inner bash expands these
	timeout 30 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"; echo hello >&3; read -r line <&3
		echo "$line"; [[ $line == "the guest answers" ]]' bash "$1"
}

end_guest() {
	kill "$launch"
	wait "$launch" || true
}

# suites: sid
# log: -netdev user,id=net0,hostfwd=tcp:127.0.0.1:
# log:  moved to passt
# autopkgtest-virt-qemu, which is spoken to at its standard streams.
coproc BED {
	autopkgtest-virt-qemu --ram-size=256 --timeout-reboot=120 --qemu-options="-machine accel=tcg \
-cpu max -kernel /srv/kernel -initrd /srv/autopkgtest.initrd -append autopkgtest" \
		/srv/autopkgtest.img
}
answer() {
	read -r -t 120 line <&"${BED[0]}"
}
say() {
	echo "$1" >&"${BED[1]}"
	answer
}
answer
echo "$line"
say open
echo "${line%% *}"
say print-execute-command
# the command, with each of its words encoded as in an address
read -r _ words <<<"$line"
IFS=, read -ra words <<<"${words%% *}"
for i in "${!words[@]}"; do
	printf -v "words[$i]" '%b' "${words[i]//%/\\x}"
done
"${words[@]}" sh -c 'wget -qO- http://10.0.2.2:8000/; exit 3' </dev/null
echo "in the guest: $?"
say close
echo "$line"
bed=$BED_PID
echo quit >&"${BED[1]}"
wait "$bed"

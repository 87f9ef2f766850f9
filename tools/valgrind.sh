#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# valgrind.sh: runs the commands of the program minesp under valgrind, in the root trixie,
# in a network namespace without minesp. Prints only findings. Part of make check.
# tool.py runs more of the program, with sanitizers.

. "$(dirname "$0")/roots.sh"

enter_root trixie gcc iproute2 libc6-dev make util-linux valgrind

if [ "${1:-}" != alone ]; then
	make -s tools MINESP=build/valgrind/minesp CFLAGS=-g || die "cannot build the program"
	exec unshare --net "$0" alone
fi
# The root must stay as it was, because packages.sh looks for such a folder.
[ -e /etc/minesp ] || trap 'umount /etc/minesp; rmdir /etc/minesp' EXIT
mkdir -p /etc/minesp
mount -t tmpfs -o mode=700 minesp /etc/minesp || die "no tmpfs"
umask 077
found=0

# Runs a command, whose exit status is 0 or 1.
run()
{
	local log=build/valgrind/log

	timeout 60 valgrind -q --error-exitcode=99 build/valgrind/minesp "$@" \
		< /dev/null > build/valgrind/out 2> $log
	[ $? -le 1 ] && ! grep -q '^==' $log && return
	echo "minesp $*:"
	cat $log
	found=1
}

run plan --rate 3/min --burst 50 --years 10
run spi
run spi sa 77 2
run spi next 0x100
run key aes128gcm16
run key no-such-suite
run new a --local 192.0.2.1 --peer 192.0.2.2 --rate 10
cp build/valgrind/out /etc/minesp/b.conf
run new c --local 2001:db8::1 --peer 2001:db8::2 --counter --suite chacha20poly1305 \
	--tunnel '198.51.100.0/24 - 203.0.113.0/24'
run new d --local 192.0.2.1 --peer 192.0.2.3 --counter --ip
run rekey a
run rekey a --retire
run up a --no-wait
for command in up check show down; do
	run $command nobody
done
for command in check show down; do
	run $command a
done
run show --json
# Hostile files: each is cut off, or has a line twice, or without its first bytes.
lines=$(wc -l < /etc/minesp/b.conf)
for ((n = 1; n <= lines; n++)); do
	head -n $n /etc/minesp/b.conf | head -c -3 > /etc/minesp/e.conf
	run check e
	sed "${n}p; ${n}s/^..../\xff%s/" /etc/minesp/b.conf > /etc/minesp/e.conf
	run check e
done
exit $found

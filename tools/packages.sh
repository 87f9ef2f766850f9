#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make check-packages: tests the Debian packages in a copy of the root trixie. Installs
# them, builds the module with DKMS for each kernel there, boots each kernel with
# systemd, and checks that minesp@a.service is up. Then upgrades the packages, purges
# them, and checks that nothing is left. Prints KTAP.

. "$(dirname "$0")/roots.sh"
. tools/ktap.sh

dir=build/packages
if [ "${1:-}" != copied ]; then
	lock_checkout
	tools/setup.sh trixie trixie-backports || die "set-up failed"
	rm -rf --one-file-system $dir
	mkdir -p $dir/{upper,work,root}
	# The older version is for the upgrade.
	for suffix in '~old' ''; do
		tools/deb.sh $suffix > $dir/log 2>&1 ||
			{ tail -n 30 $dir/log; die "cannot build the packages"; }
		mkdir "$dir/debs$suffix"
		cp build/deb/minesp{,-dkms}_*.deb "$dir/debs$suffix/"
	done
	# The mount of the copy disappears when this script ends.
	exec unshare --mount --propagation private "$0" copied
fi

# install_in() must not change the root below the overlay.
exec 9> build/roots/trixie.lock
flock 9
mount -t overlay -o "lowerdir=build/roots/trixie,upperdir=$dir/upper,workdir=$dir/work" \
	overlay $dir/root || { echo "1..0 # SKIP no overlayfs in $PWD/build"; exit 0; }
root=$PWD/$dir/root
end_together
status=0

# Prints a line of KTAP, and remembers failures. $1: the exit status; $2: the name
result()
{
	verdict "$@"
	[ "$1" = 0 ] || status=1
}

apt()
{
	in_root $root "export DEBIAN_FRONTEND=noninteractive
		apt-get -q -o Dpkg::Use-Pty=0 -y --no-install-recommends $*" > $dir/log 2>&1 ||
		{ tail -n 40 $dir/log; return 1; }
}

# Checks that DKMS builds the module for all kernels. In a chroot, the installation
# builds it only for the newest. DKMS builds it for others when they boot.
built()
{
	local release

	for release in $releases; do
		in_root $root "dkms autoinstall -k $release" >> $dir/log 2>&1
		in_root $root "modinfo -k $release minesp" | grep -q "^filename:.*dkms" || return
	done
}

# Checks that bash completes each command, with the link a.
completes()
{
	local case

	# Each case has the words typed, and after a colon the words that bash offers.
	for case in "'':new up down check show rekey spi key plan --help --version" \
			"re:rekey" "up '':--no-wait --closed a" "down '':a" "check '':a" \
			"show '':--json a" "rekey '':--ip --from --retire --force a" \
			"spi '':sa next free" "key null:null-sha256" "new --suite aes192:aes192gcm16" \
			"new --i:--implicit-iv --ip" "plan '':--rate --burst --years"; do
		[ "$(in_root $root "
			. /usr/share/bash-completion/completions/minesp
			COMP_WORDS=(minesp ${case%%:*})
			COMP_CWORD=\$((\${#COMP_WORDS[@]} - 1))
			_minesp minesp \"\${COMP_WORDS[-1]}\" \"\${COMP_WORDS[-2]}\"
			echo \${COMPREPLY[*]}")" = "${case#*:}" ] ||
			{ echo "# no completion of minesp ${case%%:*}"; return 1; }
	done
}

# Adds a service that runs when minesp@a.service is up or has failed, and tests that.
boot_test()
{
	cat > $dir/root/etc/systemd/system/boot-test.service <<-END
		[Unit]
		After=minesp@a.service minesp-closed@a.service multi-user.target
		[Service]
		Type=oneshot
		StandardOutput=file:/dev/console
		StandardError=file:/dev/console
		ExecStart=-/bin/sh -c 'systemctl is-active minesp@a minesp-closed@a; minesp show; minesp check a && echo BOOT-TEST-PASSED; systemctl status minesp@a'
		ExecStopPost=systemctl poweroff --force --force
		[Install]
		WantedBy=graphical.target default.target
	END
	in_root $root "systemctl -q enable boot-test minesp@a"
}

boots()
{
	local accel="--disable-kvm" options="-accel tcg,thread=single" kernel

	have_kvm && accel='' options=''
	kernel=$(kernel_of "$1" trixie) || return
	PATH=$PWD/build/venv/bin:$PATH timeout 400 vng $accel --systemd --rw --force-9p \
		--root "$PWD/$dir/root" --user root --cpus 2 --memory 2G --verbose \
		--run "$kernel" --busybox "$PWD/build/roots/trixie/usr/bin/busybox" \
		--append "panic=-1 oops=panic no_timer_check systemd.show_status=0" \
		--qemu-opts="$options -no-reboot" < /dev/null > "$dir/console-$1" 2>&1
	grep -q BOOT-TEST-PASSED "$dir/console-$1" || { tail -n 30 "$dir/console-$1"; return 1; }
}

# Installs and uninstalls with make. $1: the kernel's release
make_installs()
{
	in_root $root "cd build/deb/minesp-$(cat VERSION)
		make='make -s OPENRC=1 DESTDIR=/root/made KERNELRELEASE=$1'
		files() { find /root/made -type f -name 'minesp*' | wc -l; }
		\$make install && files && [ \$(files) = 9 ] && \$make uninstall && [ \$(files) = 0 ] &&
			rm -r /root/made" > $dir/log 2>&1 || { tail -n 20 $dir/log; return 1; }
}

# Prints the files of the copy with minesp in their names, except logs and caches.
left()
{
	find $dir/root -xdev -name '*minesp*' ! -path "$dir/root/minesp" ! -path '*/var/log/*' \
		! -path '*/var/cache/*'
}

releases=$(find build/roots/trixie/lib/modules -mindepth 1 -maxdepth 1 \
	! -name '*-debug' ! -name '*-races' -printf '%f\n')
echo "TAP version 13"
echo "1..$((5 + $(wc -w <<< "$releases")))"
apt install systemd-sysv ./$dir/debs~old/*.deb && built
result $? "the packages install, and DKMS builds for $(xargs <<< "$releases")"
in_root $root "umask 077; mkdir -p /etc/minesp
	minesp new a --local 192.0.2.1 --peer 192.0.2.2 2> /dev/null > /etc/minesp/b &&
	sed -i 's/Wait = yes/Wait = no/' /etc/minesp/a.conf" && boot_test
completes
result $? "bash completes what follows minesp"
make_installs "${releases%%$'\n'*}"
result $? "make install, and make uninstall"
for release in $releases; do
	boots "$release"
	result $? "$release boots, and minesp@a is up"
done
apt install ./$dir/debs/*.deb && built && [ -e $dir/root/etc/minesp/a.conf ]
result $? "an upgrade keeps the links"
in_root $root "systemctl -q disable boot-test minesp@a
	rm /etc/systemd/system/boot-test.service"
apt purge minesp minesp-dkms && left=$(left) && [ -z "$left" ]
result $? "a purge leaves nothing"
[ -z "${left:-}" ] || echo "# ${left//$'\n'/$'\n# '}"
exit $status

# SPDX-License-Identifier: GPL-2.0
#
# Targets of minesp. The kernel's build reads Kbuild, not this file.
#
# Build and install:
#
#   make                  build the module minesp/minesp.ko for the running kernel
#   make KERNELRELEASE=6.1.0-9-amd64
#   make KDIR=/path/to/kernel
#                         build the module for another kernel
#   make tools            build the program tools/minesp/minesp
#   make install          install the module, the program, its manual pages, bash
#                         completion and systemd units (with OPENRC=1 also an OpenRC
#                         script). Variables: prefix=/usr/local, DESTDIR=
#   make uninstall        remove the installed files
#   make install-tools    like install, without the module
#   make uninstall-tools  like uninstall, without the module
#   make deb              build Debian packages in build/deb: the program, and the
#                         module's source for DKMS
#   make clean            remove the built module and program; build/ stays
#
# Try, read, measure:
#
#   make demo             demonstrate minesp in virtual machines
#   make docs             build Documentation/ as HTML in build/docs, and check it
#   make bench            draw bars: instructions per packet, for minesp and esp4
#
# Test:
#
#   make quick            run the most useful tests on the newest kernel, in minutes
#   make check            build for all supported kernels, and run all tests; run some
#                         also on the debug kernel (KASAN, lockdep and others)
#   make check-debug      run all tests on the debug kernel
#   make coverage         print the lines of minesp/ that make check-debug did not reach
#   make check-races      run all tests on a kernel with KCSAN, which finds data races
#   make foreign          run all tests on 32-bit ARM and on big-endian s390x
#   make check-packages   install, boot, upgrade and purge the Debian packages
#   make cross            build the module for other architectures
#   make style            run sparse, checkpatch, shellcheck and flake8
#   make analyze          run static analysers on the module and the program

KERNELRELEASE ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KERNELRELEASE)/build

all:
	@test -e $(KDIR)/Makefile || { echo "no kernel headers in $(KDIR):" \
		"install linux-headers-$(KERNELRELEASE), or set KDIR" >&2; exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# MINESP=PATH puts the program elsewhere. LDFLAGS=-static links it statically.
MINESP := tools/minesp/minesp
WARNINGS := -Wall -Wextra -Wno-missing-field-initializers

tools: $(MINESP)

$(MINESP): $(wildcard tools/minesp/*.[ch]) include/uapi/linux/minesp.h VERSION
	@mkdir -p $(@D)
	$(CC) -O2 $(WARNINGS) -D_GNU_SOURCE -DMINESP_VERSION='"$(shell cat VERSION)"' \
		-Iinclude/uapi $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ tools/minesp/*.c

prefix := /usr/local
sbindir := $(prefix)/sbin
mandir := $(prefix)/share/man
unitdir := $(prefix)/lib/systemd/system
completiondir := $(prefix)/share/bash-completion/completions
INSTALLED := $(sbindir)/minesp $(mandir)/man8/minesp.8 $(mandir)/man7/minesp.7 \
	$(mandir)/man5/minesp.conf.5 $(unitdir)/minesp@.service \
	$(unitdir)/minesp-closed@.service $(completiondir)/minesp /etc/init.d/minesp
RELEASE = $(shell cat $(KDIR)/include/config/kernel.release)

install: all install-tools
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(DESTDIR) modules_install
	depmod -b $(DESTDIR)/ $(RELEASE)

uninstall: uninstall-tools
	find $(DESTDIR)/lib/modules/$(RELEASE)/ -name 'minesp.ko*' -delete
	depmod -b $(DESTDIR)/ $(RELEASE)

install-tools: tools
	install -D $(MINESP) $(DESTDIR)$(sbindir)/minesp
	for page in Documentation/*.[578]; do \
		install -D -m 644 -t $(DESTDIR)$(mandir)/man$${page##*.} $$page || exit; \
	done
	install -D -m 644 tools/minesp/etc/minesp.bash $(DESTDIR)$(completiondir)/minesp
	install -d $(DESTDIR)$(unitdir)
	for unit in minesp minesp-closed; do \
		sed 's|@sbindir@|$(sbindir)|' tools/minesp/etc/$$unit@.service.in \
			> $(DESTDIR)$(unitdir)/$$unit@.service || exit; \
	done
ifdef OPENRC
	install -d $(DESTDIR)/etc/init.d
	sed 's|@sbindir@|$(sbindir)|' tools/minesp/etc/minesp.openrc.in > $(DESTDIR)/etc/init.d/minesp
	chmod +x $(DESTDIR)/etc/init.d/minesp
endif

# /etc/minesp stays, because it contains keys.
uninstall-tools:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))

deb:
	tools/deb.sh

clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) clean
	rm -f $(MINESP)

demo docs check bench foreign style analyze cross coverage:
	tools/$@.sh

quick:
	tools/setup.sh trixie-backports
	RELEASES=$$(cat build/roots/trixie-backports.release) tools/check.sh interop.py \
		packets.py refuse.py clock.py klog.py

check-packages:
	tools/packages.sh

check-debug check-races: check-%:
	tools/setup.sh trixie
	tools/debug-kernel.sh $*
	RELEASES=$$(tail -n 1 build/$*/built) MINESP_TIMEOUT=14400 tools/check.sh

.PHONY: all tools install uninstall install-tools uninstall-tools deb clean demo docs quick \
	check check-debug check-races check-packages bench foreign style analyze cross coverage

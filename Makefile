# SPDX-License-Identifier: GPL-2.0
#
# minesp: what a person types. The kernel's build reads Kbuild, not this.
#
#   make            build minesp/minesp.ko for the running kernel
#   make KERNELRELEASE=6.1.0-9-amd64, make KDIR=/path/to/kernel
#                   the same for another kernel
#   make tools      build the program minesp, tools/minesp/minesp
#   make install    put the module where modprobe finds it, the program, its manual
#                   pages and what starts it at boot; prefix=/usr/local, DESTDIR=
#   make uninstall  remove all that
#   make install-tools, make uninstall-tools
#                   the same without the module
#   make deb        build Debian packages of the program, and of the module's source
#                   for DKMS, in build/deb
#   make clean      remove what was built, but not what was downloaded
#   make demo       show minesp at work, in a virtual machine
#   make docs       build Documentation/ as HTML in build/docs, and check it
#   make quick      build for the newest kernel, and run there the tests that find
#                   most, in a few minutes
#   make check      build for every supported kernel, and run all tests; some of
#                   them on a kernel with KASAN, lockdep and the like, too
#   make check-debug
#                   run all tests on that kernel
#   make coverage   then: which lines of minesp/ no test has reached
#   make check-races
#                   run all tests on a kernel with KCSAN, which finds data races
#   make foreign    run all tests on 32-bit ARM and on s390x, which is big-endian
#   make check-packages
#                   build the packages, install them, boot with them, upgrade, purge
#   make bench      draw as bars what ESP costs: instructions per packet, minesp beside
#                   esp4; in some minutes
#   make style      sparse, checkpatch, shellcheck and flake8
#   make analyze    static analysis of the module and the program
#   make cross      build for other architectures

KERNELRELEASE ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KERNELRELEASE)/build

all:
	@test -e $(KDIR)/Makefile || { echo "no kernel headers in $(KDIR):" \
		"install linux-headers-$(KERNELRELEASE), or set KDIR" >&2; exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# MINESP names another place for the program, LDFLAGS=-static makes it need no library.
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

# /etc/minesp has keys: it stays.
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

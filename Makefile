# SPDX-License-Identifier: GPL-2.0
#
# minesp: what a person types. The kernel's build reads Kbuild, not this.
#
#   make            build minesp/minesp.ko for the running kernel
#   make KERNELRELEASE=6.1.0-9-amd64, make KDIR=/path/to/kernel
#                   the same for another kernel
#   make tools      build tools/minesp-spi, which chooses SPIs
#   make install    put the module where modprobe finds it, and minesp-spi
#   make clean      remove what was built, but not what was downloaded
#   make demo       show minesp at work, in a virtual machine
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
#   make bench      draw as bars what ESP costs: instructions per packet, minesp beside
#                   esp4; in some minutes
#   make style      sparse and checkpatch
#   make cross      build for other architectures

KERNELRELEASE ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KERNELRELEASE)/build

all:
	@test -e $(KDIR)/Makefile || { echo "no kernel headers in $(KDIR):" \
		"install linux-headers-$(KERNELRELEASE), or set KDIR" >&2; exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

tools: tools/minesp-spi

tools/minesp-spi: tools/minesp-spi.c
	$(CC) -O2 -Wall -Wextra $(CFLAGS) $(LDFLAGS) -o $@ $<

install: all tools
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(DESTDIR) modules_install
	depmod -b $(DESTDIR)/ $$(cat $(KDIR)/include/config/kernel.release)
	install -D -t $(DESTDIR)/usr/local/bin tools/minesp-spi

clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) clean
	rm -f tools/minesp-spi

demo quick check bench foreign style cross coverage:
	tools/$@.sh

check-debug check-races: check-%:
	tools/setup.sh trixie
	tools/debug-kernel.sh $*
	RELEASES=$$(tail -n 1 build/$*/built) MINESP_TIMEOUT=14400 tools/check.sh

.PHONY: all tools install clean demo quick check check-debug check-races bench foreign style \
	cross coverage

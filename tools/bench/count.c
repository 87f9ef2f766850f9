// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU that counts the instructions that a machine executes while traffic.c
 * sends. It writes a line "address count" for each block of code to the file named by out=.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mark.h"

/* From qemu-plugin.h, which no Debian package has; the same in all versions of it */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*callback)(unsigned int vcpu, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*cb)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, callback cb, int flags,
					  void *data);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

struct block {
	uint64_t address, length, count;
	struct block *next;
};

static struct block *blocks;
static const char *out;

static void executed(unsigned int vcpu, void *data)
{
	struct block *b = data;

	b->count += b->length;
}

static void begin(unsigned int vcpu, void *data)
{
	for (struct block *b = blocks; b; b = b->next)
		b->count = 0;
}

static void end(unsigned int vcpu, void *data)
{
	FILE *f = fopen(out, "w");

	for (struct block *b = blocks; f && b; b = b->next)
		if (b->count)
			fprintf(f, "%llx %llu\n", (unsigned long long)b->address,
				(unsigned long long)b->count);
	if (f)
		fclose(f);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	struct block *b = calloc(1, sizeof(*b));

	b->address = qemu_plugin_tb_vaddr(tb);
	b->length = qemu_plugin_tb_n_insns(tb);
	b->next = blocks;
	blocks = b;
	if (b->address == MARK_BEGIN)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, begin, 0, NULL);
	if (b->address == MARK_END)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, end, 0, NULL);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, b);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return 1;
	out = strdup(argv[0] + 4);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}

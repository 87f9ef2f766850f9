// SPDX-License-Identifier: GPL-2.0
/*
 * The settings of this network namespace. An SA keeps the settings with which it was
 * added. So minesp sets those of a link, adds its SAs, and restores the old settings.
 * Meanwhile a file contains the old settings: after a SIGKILL, the next minesp up or
 * down in this namespace restores them.
 */
#include <errno.h>
#include <inttypes.h>
#include <paths.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include "minesp.h"

#define MAX_AHEAD_MS	86400000	/* the largest rx_max_ahead_ms */

/* The last two are for Fresh only. */
static const char *const names[] = {
	"sn_epoch", "sn_tick_us", "sn_ahead", "rx_max_age_ms", "rx_max_ahead_ms",
};

/*
 * The file for the old settings. Its name has the kernel's number of this network
 * namespace, which the kernel never reuses. A reboot removes the file and the settings.
 */
static const char *saved(void)
{
	static char path[64];
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	if (s < 0 || getsockopt(s, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len))
		die("cannot identify the network namespace: %s", strerror(errno));
	close(s);
	snprintf(path, sizeof(path), "%sminesp.%" PRIu64, _PATH_VARRUN, cookie);
	return path;
}

static bool set(const char *name, const char *value)
{
	char path[64];
	bool ok;
	FILE *f;

	fprintf(stderr, "sysctl -w net.minesp.%s=%s\n", name, value);
	snprintf(path, sizeof(path), SYSCTLS "%s", name);
	f = fopen(path, "we");
	ok = f && fputs(value, f) >= 0;
	ok = f && !fclose(f) && ok;
	if (!ok)
		fprintf(stderr, "minesp: %s: %s\n", path, strerror(errno));
	return ok;
}

/* Restores the saved settings, if any, or drops them if the module is not loaded. */
bool settings_restore(void)
{
	FILE *f = fopen(saved(), "re");
	char name[32], value[16];
	bool ok = true;

	if (!f)
		return errno == ENOENT;
	while (module_loaded() && fscanf(f, "%31s %15s", name, value) == 2)
		ok &= set(name, value);
	fclose(f);
	unlink(saved());
	return ok;
}

/* Writes the first n settings to the file, in one write(). */
static void save(size_t n)
{
	FILE *f = fopen(saved(), "we");
	char path[64], value[16];
	size_t i;

	for (i = 0; f && i < n; i++) {
		snprintf(path, sizeof(path), SYSCTLS "%s", names[i]);
		if (!read_line(path, value, sizeof(value)))
			die("%s: %s", path, strerror(errno));
		fprintf(f, "%s %s\n", names[i], value);
	}
	if (!f || fclose(f))
		die("%s: %s", saved(), strerror(errno));
}

/* Runs the lines that add SAs, with the settings that belong to their keys. */
bool settings_run(FILE *t, const struct conf *conf, const struct keys *keys)
{
	uint64_t fresh = conf->fresh * 1000ull;
	uint64_t ahead = fresh + (uint64_t)keys->ahead * keys->tick / 1000;
	uint64_t values[] = { keys->epoch, keys->tick, keys->ahead, fresh,
			      ahead < MAX_AHEAD_MS ? ahead : MAX_AHEAD_MS };
	size_t n = conf->fresh ? 5 : 3, i;
	sigset_t signals, before;
	char value[16];
	bool ok = true;

	if (!conf->clock || !*text_lines(t))
		return text_run(t);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, &before);
	save(n);
	for (i = 0; ok && i < n; i++) {
		snprintf(value, sizeof(value), "%" PRIu64, values[i]);
		ok = set(names[i], value);
	}
	ok = ok && text_run(t);
	ok &= settings_restore();
	sigprocmask(SIG_SETMASK, &before, NULL);
	return ok;
}

/* Clients of Channel Access that count what they get, many in a process: ca_crowd CLIENTS < names
 *
 * Each client is a context of libca, with a connection and threads of its own. The names end with an
 * empty line. The first line printed says how many seconds passed until each client had a value of
 * every PV; then a line for each line that is read: how many updates all of them have had.
 */
#include <cadef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST_NAMES 4096
#define PATIENCE_S 60.0

static char *names[MOST_NAMES];
static int n_names;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void demand(int status, const char *what)
{
    if (status != ECA_NORMAL) {
        fprintf(stderr, "%s: %s\n", what, ca_message(status));
        exit(1);
    }
}

static void count(struct event_handler_args event)
{
    if (event.dbr)
        __atomic_add_fetch((unsigned long *)event.usr, 1, __ATOMIC_RELAXED);
}

int main(int argc, char **argv)
{
    int n_clients = argc > 1 ? atoi(argv[1]) : 1;
    char line[256];
    while (fgets(line, sizeof line, stdin) && line[0] != '\n' && n_names < MOST_NAMES) {
        line[strcspn(line, "\n")] = 0;
        names[n_names++] = strdup(line);
    }
    size_t n = (size_t)n_clients * n_names;
    chid *channels = calloc(n, sizeof *channels);
    unsigned long *counts = calloc(n, sizeof *counts);
    struct ca_client_context **contexts = calloc(n_clients, sizeof *contexts);

    double begin = now();
    for (int client = 0; client < n_clients; client++) {
        ca_detach_context();
        demand(ca_context_create(ca_enable_preemptive_callback), "context");
        contexts[client] = ca_current_context();
        for (int i = 0; i < n_names; i++)
            demand(ca_create_channel(names[i], NULL, NULL, 0, &channels[client * n_names + i]), names[i]);
        ca_flush_io();
    }
    for (int client = 0; client < n_clients; client++) {
        ca_detach_context();
        demand(ca_attach_context(contexts[client]), "context");
        demand(ca_pend_io(PATIENCE_S), "the connection of all PVs");
        for (int i = 0; i < n_names; i++) {
            size_t at = (size_t)client * n_names + i;
            long type = dbf_type_to_DBR_TIME(ca_field_type(channels[at]));
            demand(ca_create_subscription(type, 0, channels[at], DBE_VALUE | DBE_ALARM, count, &counts[at],
                                          NULL),
                   names[i]);
        }
        ca_flush_io();
    }
    for (size_t at = 0; at < n; at++)
        while (!__atomic_load_n(&counts[at], __ATOMIC_RELAXED)) {
            if (now() > begin + PATIENCE_S)
                exit(1);
            usleep(200);
        }
    printf("%.6f\n", now() - begin);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long sum = 0;
        for (size_t at = 0; at < n; at++)
            sum += __atomic_load_n(&counts[at], __ATOMIC_RELAXED);
        printf("%lu\n", sum);
        fflush(stdout);
    }
    _exit(0); /* libca's threads would go on */
}

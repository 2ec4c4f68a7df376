/* What the reference receivers share: a socket like daq_core's, CPU time, and the report of one line. */
#ifndef UDP_H
#define UDP_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, HEADER = 48, REST_NS = 300000 }; /* as in daq_core/receiver.py */

struct header { uint64_t frame; uint32_t exposure, packet; uint64_t rest[4]; };

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static int open_socket(int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), bytes = 256 << 20;
    struct timeval patience = {.tv_sec = 1};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* do not outlive the benchmark */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("bind");
        exit(1);
    }
    return fd;
}

/* Say that packets may come now; returns the CPU time used until here. */
static double ready(void)
{
    puts("ready");
    fflush(stdout);
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

/* packets received, CPU seconds since ready(), monotonic time of the last packet */
static void report(long received, double cpu_before, double last)
{
    printf("%ld %.9f %.9f\n", received, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_before, last);
}

#endif

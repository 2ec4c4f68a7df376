/* Reference: takes each packet's header from the kernel and drops the payload; what a receiver cannot beat.
 * arguments: port, packets to receive */
#include "udp.h"

int main(int argc, char **argv)
{
    static struct header headers[BATCH];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    if (argc != 3)
        return 2;
    int fd = open_socket(atoi(argv[1]));
    long wanted = atol(argv[2]), received = 0;
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){&headers[i], HEADER};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    double cpu_before = ready(), last = 0;
    while (received < wanted) {
        int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (n > 0) {
            received += n;
            last = seconds(CLOCK_MONOTONIC);
        } else if (last && seconds(CLOCK_MONOTONIC) - last > 1) {
            break;
        }
        if (n < BATCH)
            nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
    }
    report(received, cpu_before, last);
    return 0;
}

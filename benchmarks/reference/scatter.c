/* Reference: recvmmsg scatters each payload to its place in a contiguous image; waits as daq_core does.
 * arguments: port, packets to receive, then those of map_images */
#include "images.h"

int main(int argc, char **argv)
{
    static struct images images;
    if (argc != 8)
        return 2;
    int fd = open_socket(atoi(argv[1]));
    long wanted = atol(argv[2]), received = 0;
    map_images(&images, argv + 3);
    double cpu_before = ready(), last = 0;
    while (received < wanted) {
        predict(&images);
        int n = recvmmsg(fd, images.messages, BATCH, MSG_DONTWAIT, NULL);
        if (n > 0) {
            settle(&images, n);
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

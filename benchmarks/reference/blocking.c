/* Reference: as scatter.c, but it waits in a blocking recvmmsg, as most receivers do.
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
        int n = recvmmsg(fd, images.messages, BATCH, MSG_WAITFORONE, NULL);
        if (n > 0) {
            settle(&images, n);
            received += n;
            last = seconds(CLOCK_MONOTONIC);
        } else if (last) { /* a second without a packet */
            break;
        }
    }
    report(received, cpu_before, last);
    return 0;
}

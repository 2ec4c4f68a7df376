/* Reference: a plain program from socket to compressed file. One thread waits in a blocking recvmmsg and copies each
 * payload into its image, another hands whole images to H5Dwrite, one chunk each, through the bitshuffle filter.
 * arguments: port, packets to receive, packets an image, payload bytes, rows, columns, first frame number, file */
#include "udp.h" /* first: it asks for what is not in ISO C */

#include <hdf5.h>
#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 256, PACKET = 9000, BITSHUFFLE = 32008 };

static struct {
    char *pixels;
    long packets, payload, rows, columns, n_images;
    uint64_t first;
    const char *path;
    long counts[SLOTS];
    atomic_long published, written; /* images */
} run;

static void *write_images(void *unused)
{
    hsize_t none[3] = {0, run.rows, run.columns}, most[3] = {H5S_UNLIMITED, run.rows, run.columns};
    hsize_t one[3] = {1, run.rows, run.columns};
    unsigned options[2] = {0, 2}; /* block size: the filter's choice; LZ4 */
    hid_t file = H5Fcreate(run.path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(3, none, most), image = H5Screate_simple(3, one, NULL);
    H5Pset_chunk(properties, 3, one);
    if (H5Pset_filter(properties, BITSHUFFLE, H5Z_FLAG_MANDATORY, 2, options) < 0)
        exit(3);
    hid_t data = H5Dcreate2(file, "data", H5T_NATIVE_UINT16, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    if (data < 0)
        exit(3);
    for (long i = 0; i < run.n_images; i++) {
        while (atomic_load(&run.published) <= i)
            nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
        hsize_t extent[3] = {i + 1, run.rows, run.columns}, start[3] = {i, 0, 0};
        H5Dset_extent(data, extent);
        hid_t there = H5Dget_space(data);
        H5Sselect_hyperslab(there, H5S_SELECT_SET, start, NULL, one, NULL);
        const char *pixels = run.pixels + i % SLOTS * run.packets * run.payload;
        if (H5Dwrite(data, H5T_NATIVE_UINT16, image, there, H5P_DEFAULT, pixels) < 0)
            exit(3);
        H5Sclose(there);
        atomic_store(&run.written, i + 1);
    }
    H5Dclose(data);
    H5Fclose(file);
    return unused;
}

static void place(const char *packet)
{
    const struct header *h = (const struct header *)packet;
    long image = h->frame - run.first, slot = image % SLOTS;
    if (h->packet >= (uint64_t)run.packets || image < 0 || image >= run.n_images)
        return;
    if (image - atomic_load(&run.written) >= SLOTS) /* full: this image is lost, and so is the run */
        return;
    memcpy(run.pixels + (slot * run.packets + h->packet) * run.payload, packet + HEADER, run.payload);
    if (++run.counts[slot] == run.packets) {
        run.counts[slot] = 0;
        atomic_store(&run.published, image + 1);
    }
}

int main(int argc, char **argv)
{
    static char packets[BATCH][PACKET];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    pthread_t writer;
    if (argc != 9)
        return 2;
    int fd = open_socket(atoi(argv[1]));
    long wanted = atol(argv[2]), received = 0;
    run.packets = atol(argv[3]);
    run.payload = atol(argv[4]);
    run.rows = atol(argv[5]);
    run.columns = atol(argv[6]);
    run.first = atol(argv[7]);
    run.path = argv[8];
    run.n_images = wanted / run.packets;
    run.pixels = mmap(NULL, SLOTS * run.packets * run.payload, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){packets[i], PACKET};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    pthread_create(&writer, NULL, write_images, NULL);
    double cpu_before = ready(), last = 0;
    while (received < wanted) {
        int n = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < n; i++)
            place(packets[i]);
        if (n > 0) {
            received += n;
            last = seconds(CLOCK_MONOTONIC);
        } else if (last) { /* a second without a packet */
            break;
        }
    }
    if (received < wanted || atomic_load(&run.published) < run.n_images) { /* lost: the writer waits for ever */
        report(atomic_load(&run.published) * run.packets, cpu_before, last);
        fflush(stdout);
        _exit(0);
    }
    pthread_join(writer, NULL);
    report(received, cpu_before, seconds(CLOCK_MONOTONIC));
    return 0;
}

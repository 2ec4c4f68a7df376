/* The image ring of the references that keep the pixels: each payload is scattered to its predicted place. */
#ifndef IMAGES_H
#define IMAGES_H

#include "udp.h"

struct images {
    char *pixels;             /* slot = frame % slots */
    long slots, packets, payload;
    uint64_t frame, packet;   /* what is expected next */
    uint64_t *counts;         /* packets of each slot */
    struct header headers[BATCH];
    struct iovec parts[2 * BATCH];
    struct mmsghdr messages[BATCH];
};

/* arguments: memory descriptor, slots, packets an image, payload bytes, first frame number */
static void map_images(struct images *im, char **arguments)
{
    int fd = atoi(arguments[0]);
    im->slots = atol(arguments[1]);
    im->packets = atol(arguments[2]);
    im->payload = atol(arguments[3]);
    im->frame = atol(arguments[4]);
    im->packet = 0;
    im->counts = calloc(im->slots, sizeof *im->counts);
    im->pixels = mmap(NULL, im->slots * im->packets * im->payload, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_POPULATE, fd, 0);
    for (int i = 0; i < BATCH; i++) {
        im->parts[2 * i] = (struct iovec){&im->headers[i], HEADER};
        im->parts[2 * i + 1].iov_len = im->payload;
        im->messages[i].msg_hdr.msg_iov = &im->parts[2 * i];
        im->messages[i].msg_hdr.msg_iovlen = 2;
    }
}

static char *place_of(const struct images *im, uint64_t frame, uint64_t packet)
{
    return im->pixels + (frame % im->slots * im->packets + packet) * im->payload;
}

static void predict(struct images *im)
{
    uint64_t frame = im->frame, packet = im->packet;
    for (int i = 0; i < BATCH; i++) {
        im->parts[2 * i + 1].iov_base = place_of(im, frame, packet);
        if (++packet == (uint64_t)im->packets) {
            packet = 0;
            frame++;
        }
    }
}

/* Move what came to another place than predicted; right for lost packets, not for swapped ones. */
static void settle(struct images *im, int n)
{
    for (int i = 0; i < n; i++) {
        const struct header *h = &im->headers[i];
        char *place = place_of(im, h->frame, h->packet);
        if (h->packet >= (uint64_t)im->packets)
            continue;
        if (place != im->parts[2 * i + 1].iov_base)
            memmove(place, im->parts[2 * i + 1].iov_base, im->payload);
        im->counts[h->frame % im->slots]++;
        im->frame = h->frame;
        im->packet = h->packet + 1;
    }
    if (im->packet == (uint64_t)im->packets) {
        im->packet = 0;
        im->frame++;
    }
}

#endif

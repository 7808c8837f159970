/*
 * game: the server of a small game, for the guest. vmnet/game/world.py has the same rules, and is what the tests compare it with.
 *
 *     gcc -O2 -static -Wall -Wextra -o game game.c
 *     game [PORT]
 *
 * UDP port 7009 on :: (IPv4 too). Prints "game: ready" on stdout when it is open. 20 times a second every player gets everybody's place.
 *
 * Messages. All integers are big-endian and unaligned; vmnet/game/wire.py has the same structs. Each begins with
 *   u8 magic 0x47 | u8 type | u16 version 1 | u64 player (12 bytes; a number that only that player knows), then:
 *     1 INPUT   u32 seq | i8 dx | i8 dy                to the server. The first one joins; seq 0xffffffff is none
 *     2 STATE   u32 tick | u32 acked | u32 hold_us | u32 accepted | u16 slot | u16 count | count x (u16 slot, u16 x, u16 y)
 *       acked     newest seq that the server has
 *       hold_us   from that input's arrival to this state; saturates
 *       accepted  inputs taken: one whose seq is not higher than every one before is ignored
 *       slot      of the player that this is sent to
 *     3 LEAVE   -                                      to the server
 *     4 FULL    -                                      to who would be one too many
 * What has another length, and what comes from another address than that player's first input, is ignored.
 *
 * Places are 0 to 1023 both ways and begin at 512; an input leads 8 at most, each way. A player not heard for 10 s has left.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 7009, MAGIC = 0x47, VERSION = 1, MAX_PLAYERS = 32, TICKS_PER_S = 20, SIZE = 1024, STEP = 8 };
enum { INPUT = 1, STATE, LEAVE, FULL };
enum { HEAD_LEN = 12, INPUT_LEN = 18, STATE_LEN = 32, PLACE_LEN = 6 };

static const uint32_t NONE = 0xffffffff;
static const uint64_t SECOND = 1000000000, IDLE_NS = 10 * 1000000000ull;

struct player {
    bool used;
    uint64_t id, heard_ns;
    struct sockaddr_in6 peer;
    uint32_t acked, accepted;
    int x, y;
};

static struct player players[MAX_PLAYERS];
static uint32_t ticks;
static int udp;

static void put16(uint8_t *p, uint16_t v) { v = htobe16(v); memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static int within(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "game: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void head(uint8_t *p, uint8_t type, uint64_t id) {
    p[0] = MAGIC, p[1] = type, p[2] = 0, p[3] = VERSION;
    put64(p + 4, id);
}

static void send_to(const struct sockaddr_in6 *peer, const uint8_t *p, size_t len) {
    sendto(udp, p, len, MSG_DONTWAIT, (const struct sockaddr *)peer, sizeof *peer);
}

static bool same_peer(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b) {
    return a->sin6_port == b->sin6_port && a->sin6_scope_id == b->sin6_scope_id && !memcmp(&a->sin6_addr, &b->sin6_addr, 16);
}

static struct player *find(uint64_t id) {
    for (int i = 0; i < MAX_PLAYERS; i++)
        if (players[i].used && players[i].id == id) return &players[i];
    return NULL;
}

static struct player *join(uint64_t id, const struct sockaddr_in6 *peer, uint64_t now) {
    for (int i = 0; i < MAX_PLAYERS; i++)
        if (!players[i].used) {
            players[i] = (struct player){true, id, now, *peer, NONE, 0, SIZE / 2, SIZE / 2};
            return &players[i];
        }
    return NULL;
}

static void apply(struct player *p, uint32_t seq, int dx, int dy, uint64_t now) {
    if (p->acked != NONE && seq <= p->acked) return;
    p->acked = seq, p->heard_ns = now;
    p->accepted++;
    p->x = within(p->x + within(dx, -STEP, STEP), 0, SIZE - 1);
    p->y = within(p->y + within(dy, -STEP, STEP), 0, SIZE - 1);
}

static void received(const uint8_t *in, size_t len, const struct sockaddr_in6 *peer, uint64_t now) {
    uint8_t full[HEAD_LEN];
    if (len < HEAD_LEN || in[0] != MAGIC || in[2] != 0 || in[3] != VERSION) return;
    bool input = in[1] == INPUT && len == INPUT_LEN && get32(in + HEAD_LEN) != NONE;
    if (!input && !(in[1] == LEAVE && len == HEAD_LEN)) return;
    uint64_t id = get64(in + 4);
    struct player *p = find(id);
    if (p && !same_peer(&p->peer, peer)) return;
    if (!input) {
        if (p) p->used = false;
        return;
    }
    if (!p) p = join(id, peer, now);
    if (p) {
        apply(p, get32(in + HEAD_LEN), (int8_t)in[16], (int8_t)in[17], now);
    } else {
        head(full, FULL, id);
        send_to(peer, full, sizeof full);
    }
}

static void udp_ready(void) {
    uint8_t in[64];
    struct sockaddr_in6 peer;
    for (int n = 0; n < 1024; n++) { /* a flood must not keep the clock from being looked at */
        socklen_t size = sizeof peer;
        ssize_t len = recvfrom(udp, in, sizeof in, MSG_DONTWAIT, (struct sockaddr *)&peer, &size);
        if (len < 0) return;
        received(in, (size_t)len, &peer, now_ns());
    }
}

static void tick(void) {
    uint8_t out[STATE_LEN + MAX_PLAYERS * PLACE_LEN];
    uint64_t now = now_ns();
    uint16_t count = 0;
    ticks++;
    for (int i = 0; i < MAX_PLAYERS; i++) {
        struct player *p = &players[i];
        if (p->used && now - p->heard_ns > IDLE_NS) p->used = false;
        if (!p->used) continue;
        uint8_t *place = out + STATE_LEN + count++ * PLACE_LEN;
        put16(place, (uint16_t)i), put16(place + 2, (uint16_t)p->x), put16(place + 4, (uint16_t)p->y);
    }
    for (int i = 0; i < MAX_PLAYERS; i++) {
        const struct player *p = &players[i];
        if (!p->used) continue;
        uint64_t hold_us = (now - p->heard_ns) / 1000;
        head(out, STATE, p->id);
        put32(out + 12, ticks), put32(out + 16, p->acked), put32(out + 20, hold_us > NONE ? NONE : (uint32_t)hold_us);
        put32(out + 24, p->accepted), put16(out + 28, (uint16_t)i), put16(out + 30, count);
        send_to(&p->peer, out, STATE_LEN + count * PLACE_LEN);
    }
}

static void open_port(uint16_t port) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htobe16(port)};
    int off = 0;
    udp = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (udp < 0) die("socket");
    setsockopt(udp, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(udp, (struct sockaddr *)&any, sizeof any)) die("bind");
}

int main(int argc, char **argv) {
    struct itimerspec period = {{0, SECOND / TICKS_PER_S}, {0, SECOND / TICKS_PER_S}};
    uint64_t missed; /* ticks that nobody was there for are not made up */
    open_port(argc > 1 ? (uint16_t)atoi(argv[1]) : PORT);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer < 0 || timerfd_settime(timer, 0, &period, NULL)) die("timerfd");
    struct pollfd ready[] = {{udp, POLLIN, 0}, {timer, POLLIN, 0}};
    puts("game: ready");
    fflush(stdout);
    for (;;) {
        if (poll(ready, 2, -1) < 0) continue;
        if (ready[0].revents) udp_ready();
        if (ready[1].revents && read(timer, &missed, sizeof missed) > 0) tick();
    }
}

/*
 * responder: the guest's half of vmnet's measurements. One thread and one epoll (plus one thread that dirties memory if told to).
 *
 *     gcc -O2 -static -Wall -Wextra -o responder responder.c
 *
 * UDP port 7007 on :: (IPv4 too): packet streams both ways, counted by sequence number.
 * TCP port 7008 on :: (IPv4 too): bytes, counted and checksummed (CRC-32 as zlib computes it).
 * Prints "responder: ready" on stdout when both ports are open.
 *
 * UDP messages. All integers are big-endian and unaligned; vmnet/probe/wire.py has the same structs.
 *
 *   DATA (22 bytes, zero-padded to the stream's size), both ways:
 *     u8 magic 0x56 | u8 type 1 | u32 tag | u32 seq | u32 highest | u32 received | u32 hold_us
 *       tag       low 32 bits of the session id
 *       seq       0, 1, 2, ... of this direction
 *       highest   highest client seq that the guest has (0xffffffff: none)        } guest -> client;
 *       received  how many distinct client seqs the guest has                     } from the client
 *       hold_us   guest's time from the last new client packet to this one's send } they are zero
 *   Every other message begins with  u8 magic 0x56 | u8 type | u16 version 1 | u64 session  (12 bytes), then:
 *     2 HELLO       -                                           answered by HELLO_ACK
 *     3 HELLO_ACK   u32 uptime_ms
 *     4 START       u32 rate_pps, u32 size_bytes, u32 duration_ms (0: until STOP)  answered by START_ACK; may be repeated
 *     5 START_ACK   u32 status (0 ok, 1 busy, 2 out of bounds), u32 payload_bytes
 *     6 STOP        -   the guest stops sending, goes on counting; answered by REPORT; may be repeated
 *     7 REPORT_REQ  -   answered by REPORT
 *     8 REPORT      u32 sent, u32 received (distinct), u32 duplicated, u32 reordered, u32 highest, u32 ignored (seq out of
 *                   bounds), u32 longest_gap_us (by the guest's clock, which stands still while the VM is stopped), u32 sending,
 *                   u32 dropped (by the guest's own kernel since START: no room for the socket)
 *     9 RANGES_REQ  u32 first, u32 below                        missing seqs in [first, below); answered by RANGES
 *    10 RANGES      u32 next (ask again from here; 0xffffffff: that was all), u32 count, count x (u32 first, u32 last)
 *    11 CLOSE       -   forgets the session; answered by CLOSE_ACK, also when there is none
 *    12 CLOSE_ACK   -
 *    13 DIRTY       u32 mib, u32 pages_per_second (0 of either: stop)  answered by DIRTY_ACK; may be repeated
 *    14 DIRTY_ACK   u32 status (0 ok, 1 no memory, 2 out of bounds), u32 mib, u32 pages_per_second
 *
 * size_bytes is the Ethernet frame with its 14-byte header and without FCS: payload = size_bytes - 42 over IPv4, - 62 over IPv6,
 * and at least the 22 bytes of DATA. So 64 makes frames of exactly 64 bytes over IPv4; over IPv6 the smallest frame is 84.
 * "reordered" is a first arrival whose seq is lower than the highest one seen before it.
 * A stream that has fallen more than 20 ms behind (the VM was stopped and its clock was not) goes on from now: no burst.
 *
 * TCP: the client sends  u32 "VNT1" | u8 mode | 3 x 0 | u32 rate_kbit | u32 duration_ms | u64 seed  (24 bytes), then
 *   mode 0 (sink)    any bytes and half-closes; it gets back the text "BYTES CRC32HEX\n".
 *   mode 1 (source)  reads pseudorandom bytes at rate_kbit for duration_ms, then a trailer: "VNETDONE" | u64 bytes | u32 crc.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { UDP_PORT = 7007, TCP_PORT = 7008, MAGIC = 0x56, VERSION = 1 };
enum { MAX_SESSIONS = 8, MAX_SEQ = 4 << 20, MAX_RATE = 200000, MIN_SIZE = 64, MAX_SIZE = 1514, MAX_DURATION_MS = 3600000 };
enum { BATCH = 64, DATA_LEN = 22, HEAD_LEN = 12, SLOT = 64, MAX_PAYLOAD = MAX_SIZE - 42, MAX_RANGES = 128 };
enum { MAX_CONNS = 8, CHUNK = 16384, TCP_HEAD = 24, TRAILER = 20, MAX_KBIT = 10000000 };
enum { DATA = 1, HELLO, HELLO_ACK, START, START_ACK, STOP, REPORT_REQ, REPORT, RANGES_REQ, RANGES, CLOSE, CLOSE_ACK, DIRTY, DIRTY_ACK };
enum { OK = 0, BUSY = 1, BOUNDS = 2 };
enum { EV_UDP, EV_LISTEN, EV_SESSION, EV_CONN, EV_CONN_TIMER };

static const uint32_t NONE = 0xffffffff;
static const uint64_t MS = 1000000, SECOND = 1000000000;
static const uint64_t IDLE_NS = 30 * 1000000000ull; /* a session or connection silent for so long may be taken over */
static int poller, udp;

/* ---- small tools ---- */

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void put32(uint8_t *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static uint32_t clamp_us(uint64_t ns) { return ns / 1000 > NONE ? NONE : (uint32_t)(ns / 1000); }

static void die(const char *what) {
    fprintf(stderr, "responder: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int fd, uint32_t kind, uint32_t index) {
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | index};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

/* A timer that ticks every `period` ns from `first` (CLOCK_MONOTONIC), watched by the loop. -1: out of descriptors. */
static int ticker(uint64_t first, uint64_t period, uint32_t kind, uint32_t index) {
    struct itimerspec t = {.it_value = {(time_t)(first / SECOND), (long)(first % SECOND)},
                           .it_interval = {(time_t)(period / SECOND), (long)(period % SECOND)}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) return -1;
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
    watch(fd, kind, index);
    return fd;
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* What is due of a paced stream (units of any kind) at `now`; falls behind by at most 20 ms, then goes on from now. */
struct pace { uint64_t rate, base_ns, base; };

static uint64_t pace_due(struct pace *p, uint64_t done, uint64_t now) {
    uint64_t due = p->base + (now - p->base_ns) * p->rate / SECOND;
    if (due <= done) return 0;
    if (due - done > p->rate / 50 + 1) {
        p->base_ns = now;
        p->base = done + 1;
        return 1;
    }
    return due - done;
}

/* ---- UDP sessions ---- */

struct session {
    bool used, sending;
    uint64_t id, heard_ns, arrival_ns, gap_ns;
    struct sockaddr_in6 peer;
    struct pace pace;
    int timer;
    uint32_t payload, sent, limit;
    uint32_t received, duplicated, reordered, highest, ignored, dropped_before;
    uint8_t *seen; /* one bit a client seq */
};

static struct session sessions[MAX_SESSIONS];

static struct session *find_tag(uint32_t tag) {
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (sessions[i].used && (uint32_t)sessions[i].id == tag) return &sessions[i];
    return NULL;
}

static struct session *find_id(uint64_t id) {
    struct session *s = find_tag((uint32_t)id);
    return s && s->id == id ? s : NULL;
}

static void session_stop(struct session *s) {
    s->sending = false;
    close_fd(&s->timer);
}

static void session_free(struct session *s) {
    session_stop(s);
    free(s->seen);
    *s = (struct session){.timer = -1};
}

/* Packets that the kernel had no room for in our socket, ever: SK_MEMINFO_DROPS, the ninth of SO_MEMINFO. */
static uint32_t dropped(void) {
    uint32_t info[16] = {0};
    socklen_t size = sizeof info;
    return getsockopt(udp, SOL_SOCKET, SO_MEMINFO, info, &size) ? 0 : info[8];
}

static struct session *session_new(uint64_t now) {
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (!sessions[i].used) return &sessions[i];
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (now - sessions[i].heard_ns > IDLE_NS) {
            session_free(&sessions[i]);
            return &sessions[i];
        }
    return NULL;
}

static uint32_t payload_of(uint32_t size, const struct sockaddr_in6 *peer) {
    uint32_t overhead = IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr) ? 42 : 62;
    return size < overhead + DATA_LEN ? DATA_LEN : size - overhead;
}

static uint32_t session_start(uint64_t id, const struct sockaddr_in6 *peer, const uint8_t *body, uint64_t now, uint32_t *payload) {
    uint32_t rate = get32(body), size = get32(body + 4), duration = get32(body + 8);
    struct session *s = find_id(id);
    if (rate < 1 || rate > MAX_RATE || size < MIN_SIZE || size > MAX_SIZE || duration > MAX_DURATION_MS) return BOUNDS;
    *payload = payload_of(size, peer);
    if (s) return OK;
    if (find_tag((uint32_t)id) || !(s = session_new(now))) return BUSY;
    uint64_t limit = duration ? (uint64_t)rate * duration / 1000 : MAX_SEQ;
    uint64_t period = rate < 1000 ? SECOND / rate : MS;
    *s = (struct session){.used = true, .sending = true, .id = id, .heard_ns = now, .peer = *peer, .payload = *payload, .highest = NONE};
    s->dropped_before = dropped();
    s->limit = limit > MAX_SEQ ? MAX_SEQ : (uint32_t)limit;
    s->pace = (struct pace){.rate = rate, .base_ns = now, .base = 1};
    s->seen = calloc(1, MAX_SEQ / 8);
    s->timer = ticker(now + 1, period, EV_SESSION, (uint32_t)(s - sessions));
    if (s->seen && s->timer >= 0) return OK;
    session_free(s);
    return BUSY;
}

static void count(struct session *s, uint32_t seq, uint64_t now) {
    uint8_t bit = (uint8_t)(1 << (seq & 7));
    s->heard_ns = now;
    if (seq >= MAX_SEQ) {
        s->ignored++;
    } else if (s->seen[seq >> 3] & bit) {
        s->duplicated++;
    } else {
        s->seen[seq >> 3] |= bit;
        if (s->received++ && now - s->arrival_ns > s->gap_ns) s->gap_ns = now - s->arrival_ns;
        s->arrival_ns = now;
        if (s->highest == NONE || seq > s->highest) s->highest = seq;
        else s->reordered++;
    }
}

/* Sends up to n packets of the stream in one call; how many went. */
static uint32_t send_batch(struct session *s, uint32_t n, uint64_t now) {
    static uint8_t out[BATCH][MAX_PAYLOAD];
    static struct iovec iov[BATCH];
    static struct mmsghdr msgs[BATCH];
    uint32_t hold = s->received ? clamp_us(now - s->arrival_ns) : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *p = out[i];
        p[0] = MAGIC, p[1] = DATA;
        put32(p + 2, (uint32_t)s->id);
        put32(p + 6, s->sent + i);
        put32(p + 10, s->highest);
        put32(p + 14, s->received);
        put32(p + 18, hold);
        iov[i] = (struct iovec){p, s->payload};
        msgs[i].msg_hdr = (struct msghdr){.msg_name = &s->peer, .msg_namelen = sizeof s->peer, .msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int sent = sendmmsg(udp, msgs, n, MSG_DONTWAIT);
    return sent < 0 ? 0 : (uint32_t)sent;
}

static void session_tick(struct session *s) {
    uint64_t ticks, now = now_ns();
    if (!s->used || !s->sending || read(s->timer, &ticks, sizeof ticks) < 0) return;
    uint64_t due = pace_due(&s->pace, s->sent, now);
    if (due > s->limit - s->sent) due = s->limit - s->sent;
    while (due) {
        uint32_t sent = send_batch(s, due > BATCH ? BATCH : (uint32_t)due, now);
        if (!sent) break; /* no room, or no route for now: the next tick tries again */
        s->sent += sent;
        due -= sent;
    }
    if (s->sent >= s->limit) session_stop(s);
}

/* ---- memory dirtier ---- */

static struct { pthread_t thread; bool running; _Atomic bool stop; uint8_t *memory; uint32_t mib, rate; } dirty;

static void *dirty_run(void *unused) {
    uint64_t pages = (uint64_t)dirty.mib * 256, page = 0, done = 0;
    struct pace pace = {.rate = dirty.rate, .base_ns = now_ns(), .base = 0};
    struct timespec tick = {0, 5000000};
    for (; !atomic_load(&dirty.stop); clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL))
        for (uint64_t due = pace_due(&pace, done, now_ns()); due; due--, done++, page = (page + 1) % pages)
            put64(dirty.memory + page * 4096, done);
    return unused;
}

static void dirty_end(void) {
    if (!dirty.running) return;
    atomic_store(&dirty.stop, true);
    pthread_join(dirty.thread, NULL);
    munmap(dirty.memory, (size_t)dirty.mib << 20);
    dirty.running = false;
    dirty.mib = dirty.rate = 0;
}

static uint32_t dirty_set(uint32_t mib, uint32_t rate) {
    struct sysinfo info;
    if (mib == dirty.mib && rate == dirty.rate) return OK;
    dirty_end();
    if (!mib || !rate) return OK;
    if (mib > 1 << 20 || rate > 10000000) return BOUNDS;
    if (sysinfo(&info) || ((uint64_t)mib << 20) > (uint64_t)info.freeram * info.mem_unit / 4 * 3) return BUSY;
    dirty.memory = mmap(NULL, (size_t)mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (dirty.memory == MAP_FAILED) return BUSY;
    dirty.mib = mib, dirty.rate = rate;
    atomic_store(&dirty.stop, false);
    dirty.running = !pthread_create(&dirty.thread, NULL, dirty_run, NULL);
    if (dirty.running) return OK;
    munmap(dirty.memory, (size_t)mib << 20);
    dirty.mib = dirty.rate = 0;
    return BUSY;
}

/* ---- UDP messages ---- */

static void reply(const struct sockaddr_in6 *peer, uint8_t type, uint64_t id, const uint8_t *body, size_t len) {
    uint8_t out[HEAD_LEN + 8 + MAX_RANGES * 8] = {MAGIC, type, 0, VERSION};
    put64(out + 4, id);
    if (len) memcpy(out + HEAD_LEN, body, len);
    sendto(udp, out, HEAD_LEN + len, MSG_DONTWAIT, (const struct sockaddr *)peer, sizeof *peer);
}

static void reply_report(const struct sockaddr_in6 *peer, const struct session *s) {
    uint32_t fields[] = {s->sent, s->received, s->duplicated, s->reordered, s->highest, s->ignored, clamp_us(s->gap_ns), s->sending,
                         dropped() - s->dropped_before};
    uint8_t body[sizeof fields];
    for (size_t i = 0; i < sizeof fields / 4; i++) put32(body + 4 * i, fields[i]);
    reply(peer, REPORT, s->id, body, sizeof body);
}

static bool seen(const struct session *s, uint32_t seq) { return s->seen[seq >> 3] >> (seq & 7) & 1; }

static void reply_ranges(const struct sockaddr_in6 *peer, const struct session *s, uint32_t seq, uint32_t below) {
    uint8_t body[8 + MAX_RANGES * 8];
    uint32_t n = 0;
    if (below > MAX_SEQ) below = MAX_SEQ;
    while (seq < below && n < MAX_RANGES) {
        while (seq < below && seen(s, seq)) seq++;
        if (seq >= below) break;
        put32(body + 8 + n * 8, seq);
        while (seq < below && !seen(s, seq)) seq++;
        put32(body + 12 + n++ * 8, seq - 1);
    }
    put32(body, seq < below ? seq : NONE);
    put32(body + 4, n);
    reply(peer, RANGES, s->id, body, 8 + n * 8);
}

static void reply_words(const struct sockaddr_in6 *peer, uint8_t type, uint64_t id, uint32_t a, uint32_t b, uint32_t c, size_t words) {
    uint8_t body[12];
    put32(body, a), put32(body + 4, b), put32(body + 8, c);
    reply(peer, type, id, body, words * 4);
}

static void control(const uint8_t *p, size_t len, const struct sockaddr_in6 *peer, uint64_t now) {
    if (len < HEAD_LEN || p[2] != 0 || p[3] != VERSION) return;
    uint64_t id = get64(p + 4);
    struct session *s = find_id(id);
    const uint8_t *body = p + HEAD_LEN;
    uint32_t payload = 0, status;
    len -= HEAD_LEN;
    if (s) s->heard_ns = now;
    if (p[1] == HELLO) {
        reply_words(peer, HELLO_ACK, id, (uint32_t)(now / MS), 0, 0, 1);
    } else if (p[1] == START && len >= 12) {
        status = session_start(id, peer, body, now, &payload);
        reply_words(peer, START_ACK, id, status, payload, 0, 2);
    } else if ((p[1] == STOP || p[1] == REPORT_REQ) && s) {
        if (p[1] == STOP) session_stop(s);
        reply_report(peer, s);
    } else if (p[1] == RANGES_REQ && s && len >= 8) {
        reply_ranges(peer, s, get32(body), get32(body + 4));
    } else if (p[1] == CLOSE) {
        if (s) session_free(s);
        reply(peer, CLOSE_ACK, id, NULL, 0);
    } else if (p[1] == DIRTY && len >= 8) {
        status = dirty_set(get32(body), get32(body + 4));
        reply_words(peer, DIRTY_ACK, id, status, dirty.mib, dirty.rate, 3);
    }
}

static void udp_ready(void) {
    static uint8_t in[BATCH][SLOT];
    static struct sockaddr_in6 from[BATCH];
    static struct iovec iov[BATCH];
    static struct mmsghdr msgs[BATCH];
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){in[i], SLOT};
        msgs[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &iov[i], .msg_iovlen = 1};
    }
    int n = recvmmsg(udp, msgs, BATCH, MSG_DONTWAIT, NULL);
    uint64_t now = now_ns();
    for (int i = 0; i < n; i++) {
        const uint8_t *p = in[i];
        struct session *s;
        if (msgs[i].msg_len < 2 || p[0] != MAGIC) continue;
        if (p[1] != DATA) control(p, msgs[i].msg_len, &from[i], now);
        else if (msgs[i].msg_len >= DATA_LEN && (s = find_tag(get32(p + 2)))) count(s, get32(p + 6), now);
    }
}

/* ---- TCP ---- */

struct conn {
    int fd, timer;
    bool source, ending;
    uint64_t heard_ns, end_ns, bytes, random;
    uint32_t crc, head_len, pending, offset;
    struct pace pace;
    uint8_t head[TCP_HEAD], chunk[CHUNK];
};

static struct conn conns[MAX_CONNS];
static uint32_t crc_table[8][256];

static void crc_init(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++) crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 255];
}

static uint32_t crc_add(uint32_t crc, const uint8_t *p, size_t n) {
    uint32_t c = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        w = le64toh(w) ^ c;
        c = 0;
        for (int k = 0; k < 8; k++) c ^= crc_table[7 - k][w >> (8 * k) & 255];
    }
    while (n--) c = c >> 8 ^ crc_table[0][(c ^ *p++) & 255];
    return ~c;
}

static void conn_close(struct conn *c) {
    close_fd(&c->fd);
    close_fd(&c->timer);
}

static void conn_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    uint64_t now = now_ns();
    struct conn *c = NULL;
    if (fd < 0) return;
    for (int i = 0; i < MAX_CONNS && !c; i++)
        if (conns[i].fd < 0) c = &conns[i];
    for (int i = 0; i < MAX_CONNS && !c; i++)
        if (now - conns[i].heard_ns > IDLE_NS) conn_close(c = &conns[i]);
    if (!c) {
        close(fd);
        return;
    }
    memset(c, 0, sizeof *c);
    c->fd = fd, c->timer = -1, c->heard_ns = now;
    watch(fd, EV_CONN, (uint32_t)(c - conns));
}

/* The header is complete: false if it makes no sense. */
static bool conn_begin(struct conn *c) {
    uint32_t kbit = get32(c->head + 8), duration = get32(c->head + 12);
    if (memcmp(c->head, "VNT1", 4) || c->head[4] > 1) return false;
    c->source = c->head[4] == 1;
    if (!c->source) return true;
    if (kbit < 1 || kbit > MAX_KBIT || duration < 1 || duration > MAX_DURATION_MS) return false;
    uint64_t now = now_ns();
    c->random = get64(c->head + 16) | 1;
    c->end_ns = now + duration * MS;
    c->pace = (struct pace){.rate = kbit * 125ull, .base_ns = now, .base = 0};
    c->timer = ticker(now + 5 * MS, 5 * MS, EV_CONN_TIMER, (uint32_t)(c - conns));
    return c->timer >= 0;
}

static void conn_fill(struct conn *c, uint32_t n) {
    uint64_t x = c->random;
    for (uint32_t i = 0; i < (n + 7) / 8; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 (Marsaglia 2003) */
        memcpy(c->chunk + 8 * i, &x, 8);
    }
    c->random = x;
    c->crc = crc_add(c->crc, c->chunk, n);
    c->bytes += n;
    c->pending = n, c->offset = 0;
}

static void conn_trailer(struct conn *c) {
    memcpy(c->chunk, "VNETDONE", 8);
    put64(c->chunk + 8, c->bytes);
    put32(c->chunk + 16, c->crc);
    c->pending = TRAILER, c->offset = 0;
    c->ending = true;
}

/* Sends what is pending; true when all of it is gone. */
static bool conn_flush(struct conn *c) {
    while (c->pending) {
        ssize_t n = send(c->fd, c->chunk + c->offset, c->pending, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0) return false;
        c->offset += (uint32_t)n, c->pending -= (uint32_t)n;
        c->heard_ns = now_ns();
    }
    return true;
}

static void conn_tick(struct conn *c) {
    uint64_t ticks, now = now_ns();
    if (c->timer < 0 || read(c->timer, &ticks, sizeof ticks) < 0 || !conn_flush(c)) return;
    uint64_t due = c->ending ? 0 : pace_due(&c->pace, c->bytes, now);
    while (due) {
        uint32_t n = due > CHUNK ? CHUNK : (uint32_t)due;
        conn_fill(c, n);
        if (!conn_flush(c)) return;
        due -= n;
    }
    if (!c->ending && now >= c->end_ns) conn_trailer(c);
    if (c->ending && conn_flush(c)) {
        shutdown(c->fd, SHUT_WR);
        close_fd(&c->timer);
    }
}

/* The client half-closed: a sink answers with what it counted. */
static void conn_finish(struct conn *c) {
    char text[40];
    if (c->source || c->head_len < TCP_HEAD) return;
    int n = snprintf(text, sizeof text, "%llu %08x\n", (unsigned long long)c->bytes, c->crc);
    if (send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n) shutdown(c->fd, SHUT_WR);
}

static void conn_ready(struct conn *c) {
    static uint8_t in[262144];
    bool head = c->fd >= 0 && c->head_len < TCP_HEAD;
    if (c->fd < 0) return;
    ssize_t n = recv(c->fd, head ? c->head + c->head_len : in, head ? TCP_HEAD - c->head_len : sizeof in, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    c->heard_ns = now_ns();
    if (n == 0) conn_finish(c);
    if (n <= 0) {
        conn_close(c);
    } else if (head) {
        c->head_len += (uint32_t)n;
        if (c->head_len == TCP_HEAD && !conn_begin(c)) conn_close(c);
    } else if (!c->source) {
        c->crc = crc_add(c->crc, in, (size_t)n);
        c->bytes += (uint64_t)n;
    }
}

/* ---- main ---- */

static int open_port(int type, uint16_t port) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htobe16(port)};
    int off = 0, on = 1, size = 16 << 20, fd = socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (type == SOCK_DGRAM) { /* FORCE needs privilege; without it as much as there is */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    }
    if (bind(fd, (struct sockaddr *)&any, sizeof any)) die("bind");
    if (type == SOCK_STREAM && listen(fd, 16)) die("listen");
    return fd;
}

static void dispatch(uint64_t tag, int listener) {
    uint32_t index = (uint32_t)tag;
    switch (tag >> 32) {
    case EV_UDP: udp_ready(); break;
    case EV_LISTEN: conn_accept(listener); break;
    case EV_SESSION: session_tick(&sessions[index]); break;
    case EV_CONN: conn_ready(&conns[index]); break;
    case EV_CONN_TIMER: conn_tick(&conns[index]); break;
    }
}

int main(void) {
    struct epoll_event events[32];
    signal(SIGPIPE, SIG_IGN);
    crc_init();
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1");
    for (int i = 0; i < MAX_SESSIONS; i++) sessions[i].timer = -1;
    for (int i = 0; i < MAX_CONNS; i++) conns[i].fd = conns[i].timer = -1;
    udp = open_port(SOCK_DGRAM, UDP_PORT);
    int listener = open_port(SOCK_STREAM, TCP_PORT);
    watch(udp, EV_UDP, 0);
    watch(listener, EV_LISTEN, 0);
    puts("responder: ready");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(poller, events, 32, -1);
        for (int i = 0; i < n; i++) dispatch(events[i].data.u64, listener);
    }
}

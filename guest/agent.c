/*
 * agent: tells a daemon outside what the kernel it runs on has: links, addresses, rules, permanent neighbours; what it does to packets
 * beside routing (forwarding per interface, queueing disciplines, netfilter); and, with -r, routes and next hops.
 *
 *     gcc -O2 -static -Wall -Wextra -o agent agent.c
 *     agent [-r] ADDRESS PORT        ADDRESS is IPv4, or IPv6 (link-local: fe80::1%eth0)
 *
 * Frames as FRR's FPM has them (fpm/fpm.h): u8 version 1 | u8 type 1 | u16 length with this header, big-endian; then one netlink message.
 *   NLMSG_NOOP with a u32 of flags (1: routes are told of too; 2: so is what the kernel does beside routing)    a full state begins
 *   RTM_NEW*                                                      the dump
 *   NLMSG_DONE                                                    it was complete
 *   RTM_NEW*, RTM_DEL*                                            changes, as the kernel tells of them
 *   5 with a u32 of flags (1, 2: rules of iptables, of ip6tables; 4: nftables cannot be read)    netfilter begins, all of it
 *   NFNL_SUBSYS_NFTABLES NFT_MSG_NEWCHAIN                         each chain of nftables
 *   6                                                             netfilter was complete
 * Netfilter comes within the dump, and again whenever it has changed: nftables tells of changes, iptables is looked at every second.
 * Notifications are subscribed to before the dump, so that nothing falls between. When some were lost (ENOBUFS) or a dump was
 * interrupted by changes, a full state begins again on the same connection. When the connection breaks it is made again, for ever, 50 ms
 * to 1 s apart. A peer that is silent for 5 s is given up.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/netconf.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES (1 << 18)
#define NOTIFICATION_BUFFER (32 << 20)
#define FIRST_PAUSE_MS 50
#define LONGEST_PAUSE_MS 1000
#define CONNECT_MS 2000
#define USER_TIMEOUT_MS 5000
#define MOST_FRAME 0xffff
#define LOOK_MS 1000
#define TELLS_ROUTES 1
#define TELLS_BESIDE 2
#define NETFILTER_BEGINS 5
#define NETFILTER_COMPLETE 6
#define UNREADABLE 4
#define NEW_CHAIN (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN)
#define GET_CHAINS (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN)

enum outcome { GOOD, BROKEN, AGAIN };

static char input[BUFFER_BYTES] __attribute__((aligned(8)));
static char output[BUFFER_BYTES];
static size_t filled;
static int peer = -1;
static int nftables = -1; /* tells of changes; -1: this kernel has none */
static uint32_t legacy; /* what was said of iptables last */
static bool routes;

static void fatal(const char *what)
{
    fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The peer's socket blocks; TCP_USER_TIMEOUT bounds how long. */
static enum outcome flush(void)
{
    for (size_t sent = 0; sent < filled;) {
        ssize_t n = send(peer, output + sent, filled - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return BROKEN;
        sent += (size_t)n;
    }
    filled = 0;
    return GOOD;
}

static enum outcome put(const struct nlmsghdr *message)
{
    size_t length = message->nlmsg_len + 4;
    if (length > MOST_FRAME)
        return GOOD; /* no frame is that long; the kernel writes none */
    if (filled + length > sizeof output && flush() == BROKEN)
        return BROKEN;
    uint8_t header[4] = {1, 1, (uint8_t)(length >> 8), (uint8_t)length};
    memcpy(output + filled, header, 4);
    memcpy(output + filled + 4, message, message->nlmsg_len);
    filled += length;
    return GOOD;
}

static enum outcome put_mark(uint16_t type, uint32_t flags)
{
    struct {
        struct nlmsghdr header;
        uint32_t flags;
    } mark = {{sizeof mark, type, 0, 0, 0}, flags};
    return put(&mark.header);
}

static bool wanted(uint16_t type)
{
    switch (type) {
    case RTM_NEWLINK: case RTM_DELLINK: case RTM_NEWADDR: case RTM_DELADDR: case RTM_NEWRULE: case RTM_DELRULE:
    case RTM_NEWNEIGH: case RTM_DELNEIGH: case RTM_NEWNETCONF: case RTM_DELNETCONF: case RTM_NEWQDISC: case RTM_DELQDISC:
    case NEW_CHAIN:
        return true;
    case RTM_NEWROUTE: case RTM_DELROUTE: case RTM_NEWNEXTHOP: case RTM_DELNEXTHOP:
        return routes;
    default:
        return false;
    }
}

/* Messages of one datagram. AGAIN: a dump that changes ran into. *done is set at the dump's end. */
static enum outcome copy(size_t size, bool *done, uint32_t port)
{
    enum outcome found = GOOD;
    for (struct nlmsghdr *m = (struct nlmsghdr *)input; NLMSG_OK(m, size); m = NLMSG_NEXT(m, size)) {
        if (m->nlmsg_pid != port && port)
            continue;
        if (m->nlmsg_flags & NLM_F_DUMP_INTR)
            found = AGAIN;
        if (m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR)
            *done = true;
        else if (wanted(m->nlmsg_type) && put(m) == BROKEN)
            return BROKEN;
    }
    return found;
}

/* -1 with errno if the kernel has no such protocol. */
static int netlink_of(int protocol, uint32_t *port)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    struct sockaddr_nl own = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof own;
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&own, sizeof own) || getsockname(fd, (struct sockaddr *)&own, &length))
        fatal("netlink");
    *port = own.nl_pid;
    return fd;
}

static int netlink(uint32_t *port)
{
    int fd = netlink_of(NETLINK_ROUTE, port);
    if (fd < 0)
        fatal("netlink");
    return fd;
}

static int subscribed(void)
{
    static const int always[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE,
                                 RTNLGRP_NEIGH, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF, RTNLGRP_TC};
    static const int also[] = {RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEXTHOP};
    uint32_t port;
    int fd = netlink(&port), size = NOTIFICATION_BUFFER;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &always[i], sizeof *always))
            fatal("subscribing");
    for (size_t i = 0; routes && i < sizeof also / sizeof *also; i++)
        setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &also[i], sizeof *also); /* kernels before 5.3 have no next hops */
    return fd;
}

static uint32_t body_of(uint16_t type)
{
    switch (type) {
    case RTM_GETLINK:
        return sizeof(struct ifinfomsg);
    case RTM_GETNEXTHOP:
        return sizeof(struct nhmsg);
    case RTM_GETQDISC:
        return sizeof(struct tcmsg);
    case RTM_GETNETCONF:
        return sizeof(struct netconfmsg);
    case GET_CHAINS:
        return sizeof(struct nfgenmsg);
    default:
        return 12;
    }
}

static enum outcome dump(int fd, uint32_t port, uint16_t type, uint8_t family)
{
    struct {
        struct nlmsghdr header;
        uint8_t body[20];
    } request = {{0, type, NLM_F_REQUEST | NLM_F_DUMP, 0, 0}, {family}};
    request.header.nlmsg_len = NLMSG_LENGTH(body_of(type));
    if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
        fatal("asking for a dump");
    enum outcome found = GOOD;
    for (bool done = false; !done;) {
        ssize_t size = recv(fd, input, sizeof input, 0);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            fatal("reading a dump");
        enum outcome one = copy((size_t)size, &done, port);
        if (one == BROKEN)
            return BROKEN;
        if (one == AGAIN)
            found = AGAIN;
    }
    return found;
}

/*
 * iptables-legacy (linux/netfilter_ipv4/ip_tables.h, ip6_tables.h: the same but for the size of an entry). The kernel tells of no change
 * of it, and has a table as soon as somebody looked at it: what counts is a rule, or a policy to drop, in a chain that data passes.
 */
#define GET_INFO 64
#define GET_ENTRIES 65
#define HOOKS 5
#define VERDICT_DROP (-1)
#define MOST_TABLE_BYTES (64 << 20)

struct table_info {
    char name[32];
    uint32_t valid_hooks, hook_entry[HOOKS], underflow[HOOKS], entries, size;
};

struct table_entries {
    char name[32];
    uint32_t size;
    char data[] __attribute__((aligned(8)));
};

/* Whether the policy at `at` lets all through. `shift`: where an entry says how far behind it its target is. */
static bool accepts(const struct table_entries *table, uint32_t at, uint32_t shift)
{
    uint16_t target;
    int32_t verdict;
    if (at > table->size || table->size - at < shift + 2)
        return false;
    memcpy(&target, table->data + at + shift, sizeof target);
    if (table->size - at < target + 36u)
        return false;
    memcpy(&verdict, table->data + at + target + 32, sizeof verdict);
    return verdict != VERDICT_DROP;
}

static bool table_changes(int fd, int level, const char *name, uint32_t shift)
{
    static const int passed[] = {0, 2, 4}; /* PREROUTING, FORWARD, POSTROUTING */
    struct table_info info = {0};
    socklen_t length = sizeof info;
    snprintf(info.name, sizeof info.name, "%s", name);
    if (getsockopt(fd, level, GET_INFO, &info, &length))
        return errno != ENOENT;
    if (info.size > MOST_TABLE_BYTES)
        return true;
    struct table_entries *table = calloc(1, sizeof *table + info.size);
    if (!table)
        return true;
    snprintf(table->name, sizeof table->name, "%s", name);
    table->size = info.size;
    length = (socklen_t)(sizeof *table + info.size);
    bool found = getsockopt(fd, level, GET_ENTRIES, table, &length) != 0; /* it has changed meanwhile: not empty */
    for (size_t i = 0; !found && i < sizeof passed / sizeof *passed; i++) {
        int hook = passed[i];
        if (info.valid_hooks & 1u << hook)
            found = info.hook_entry[hook] != info.underflow[hook] || !accepts(table, info.underflow[hook], shift);
    }
    free(table);
    return found;
}

static bool tables_change(const char *names, int family, int level, uint32_t shift)
{
    FILE *list = fopen(names, "re");
    if (!list)
        return false;
    int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    bool found = false;
    char name[32];
    while (!found && fscanf(list, "%31s", name) == 1)
        found = fd < 0 || table_changes(fd, level, name, shift);
    if (fd >= 0)
        close(fd);
    fclose(list);
    return found;
}

static uint32_t legacy_now(void)
{
    /* target_offset: behind struct ipt_ip (84 bytes) and nfcache; behind struct ip6t_ip6 (136) and nfcache */
    return (tables_change("/proc/net/ip_tables_names", AF_INET, IPPROTO_IP, 88) ? 1 : 0)
           | (tables_change("/proc/net/ip6_tables_names", AF_INET6, IPPROTO_IPV6, 140) ? 2 : 0);
}

/* Whether changes of nftables are told from now on. A kernel may get it at any time (a module). */
static bool hear_nftables(void)
{
    uint32_t port;
    int group = NFNLGRP_NFTABLES;
    if (nftables >= 0)
        return true;
    nftables = netlink_of(NETLINK_NETFILTER, &port);
    if (nftables >= 0 && setsockopt(nftables, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group)) {
        close(nftables);
        nftables = -1;
    }
    return nftables >= 0;
}

/* All chains of nftables, whether there are any or not. AGAIN: they were changed meanwhile. */
static enum outcome put_netfilter(void)
{
    uint32_t port;
    int fd = hear_nftables() ? netlink_of(NETLINK_NETFILTER, &port) : -1;
    legacy = legacy_now();
    enum outcome found = put_mark(NETFILTER_BEGINS, legacy | (nftables >= 0 && fd < 0 ? UNREADABLE : 0));
    if (found == GOOD && fd >= 0)
        found = dump(fd, port, GET_CHAINS, AF_UNSPEC);
    if (fd >= 0)
        close(fd);
    return found == GOOD ? put_mark(NETFILTER_COMPLETE, 0) : found;
}

/* Until it stood still for as long as the look took. */
static enum outcome tell_netfilter(void)
{
    enum outcome found;
    do
        found = put_netfilter();
    while (found == AGAIN);
    return found == GOOD ? flush() : found;
}

static enum outcome dump_all(void)
{
    static const struct {
        uint16_t type;
        uint8_t family;
        bool route;
    } parts[] = {{RTM_GETLINK, AF_UNSPEC, false}, {RTM_GETADDR, AF_INET, false}, {RTM_GETADDR, AF_INET6, false},
                 {RTM_GETNEXTHOP, AF_UNSPEC, true}, {RTM_GETROUTE, AF_INET, true}, {RTM_GETROUTE, AF_INET6, true},
                 {RTM_GETRULE, AF_INET, false}, {RTM_GETRULE, AF_INET6, false}, {RTM_GETNEIGH, AF_INET, false},
                 {RTM_GETNEIGH, AF_INET6, false}, {RTM_GETNETCONF, AF_INET, false}, {RTM_GETNETCONF, AF_INET6, false},
                 {RTM_GETQDISC, AF_UNSPEC, false}};
    uint32_t port;
    int fd = netlink(&port);
    enum outcome found = put_mark(NLMSG_NOOP, TELLS_BESIDE | (routes ? TELLS_ROUTES : 0));
    for (size_t i = 0; found == GOOD && i < sizeof parts / sizeof *parts; i++)
        if (routes || !parts[i].route)
            found = dump(fd, port, parts[i].type, parts[i].family);
    close(fd);
    if (found == GOOD)
        found = put_netfilter();
    if (found == GOOD)
        found = put_mark(NLMSG_DONE, 0);
    return found == BROKEN || flush() == BROKEN ? BROKEN : found;
}

/* Everything that is there to be read, without waiting. */
static enum outcome drain(int notes)
{
    for (;;) {
        ssize_t size = recv(notes, input, sizeof input, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return flush();
        if (size < 0)
            return errno == ENOBUFS ? AGAIN : BROKEN;
        bool done;
        if (copy((size_t)size, &done, 0) == BROKEN)
            return BROKEN;
    }
}

/* Sets and counters change with every packet, in some rulesets: only tables, chains and rules count. */
static bool of_chains(size_t size)
{
    for (struct nlmsghdr *m = (struct nlmsghdr *)input; NLMSG_OK(m, size); m = NLMSG_NEXT(m, size))
        if (NFNL_SUBSYS_ID(m->nlmsg_type) == NFNL_SUBSYS_NFTABLES && NFNL_MSG_TYPE(m->nlmsg_type) <= NFT_MSG_DELRULE)
            return true;
    return false;
}

static long long next_look_ms;

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int until_look_ms(void)
{
    long long left = next_look_ms - now_ms();
    return left > 0 ? (int)left : 0;
}

/* What nothing tells of: looked at once in LOOK_MS, and not with every route that changes. */
static bool unheard_changed(bool heard)
{
    if (until_look_ms())
        return false;
    next_look_ms = now_ms() + LOOK_MS;
    return hear_nftables() != heard || legacy_now() != legacy;
}

/* What nftables tells of its changes is only a reason to look: a chain's number of rules is told of by none of them. */
static bool netfilter_changed(bool told)
{
    bool heard = nftables >= 0, found = false;
    while (told) {
        ssize_t size = recv(nftables, input, sizeof input, MSG_DONTWAIT);
        if (size < 0 && errno != EINTR && errno != ENOBUFS)
            break;
        found |= size < 0 ? errno == ENOBUFS : of_chains((size_t)size);
    }
    return found || unheard_changed(heard);
}

/* Until something is lost or the connection breaks. */
static enum outcome follow(int notes)
{
    for (;;) {
        struct pollfd watched[] = {{.fd = notes, .events = POLLIN}, {.fd = peer, .events = POLLIN | POLLRDHUP},
                                   {.fd = nftables, .events = POLLIN}};
        if (poll(watched, 3, until_look_ms()) < 0) {
            if (errno == EINTR)
                continue;
            fatal("poll");
        }
        char byte;
        ssize_t said = watched[1].revents ? recv(peer, &byte, 1, MSG_DONTWAIT) : 1;
        if (!said || (said < 0 && errno != EAGAIN && errno != EINTR))
            return BROKEN;
        enum outcome found = watched[0].revents ? drain(notes) : GOOD;
        if (found == GOOD && netfilter_changed(watched[2].revents != 0))
            found = tell_netfilter();
        if (found != GOOD)
            return found;
    }
}

/* A full state, then changes, again and again until the connection breaks. */
static void serve(void)
{
    enum outcome found = AGAIN;
    while (found != BROKEN) {
        int notes = subscribed();
        filled = 0;
        found = dump_all();
        if (found == GOOD)
            found = follow(notes);
        close(notes);
    }
}

static void pause_ms(int ms)
{
    struct timespec length = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&length, NULL);
}

static void set(int level, int option, int value)
{
    setsockopt(peer, level, option, &value, sizeof value);
}

static bool connected(const struct sockaddr *address, socklen_t length)
{
    peer = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (peer < 0)
        fatal("socket");
    struct timeval limit = {CONNECT_MS / 1000, 0}, none = {0, 0};
    setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(peer, address, length)) {
        close(peer);
        return false;
    }
    setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(IPPROTO_TCP, TCP_KEEPCNT, 5);
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    return true;
}

static socklen_t parse(char *text, const char *port, struct sockaddr_storage *found)
{
    struct sockaddr_in *four = (struct sockaddr_in *)found;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)found;
    char *zone = strchr(text, '%');
    if (zone)
        *zone++ = 0;
    memset(found, 0, sizeof *found);
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)atoi(port));
        return sizeof *four;
    }
    if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1)
        return 0;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)atoi(port));
    six->sin6_scope_id = zone ? if_nametoindex(zone) : 0;
    return sizeof *six;
}

int main(int argc, char **argv)
{
    int first = 1;
    if (argc > 1 && !strcmp(argv[1], "-r")) {
        routes = true;
        first = 2;
    }
    struct sockaddr_storage address;
    socklen_t length = argc == first + 2 ? parse(argv[first], argv[first + 1], &address) : 0;
    if (!length) {
        fprintf(stderr, "usage: agent [-r] ADDRESS PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    for (int pause = FIRST_PAUSE_MS;; pause = pause * 2 < LONGEST_PAUSE_MS ? pause * 2 : LONGEST_PAUSE_MS) {
        if (connected((struct sockaddr *)&address, length)) {
            pause = FIRST_PAUSE_MS / 2;
            serve();
            close(peer);
        }
        pause_ms(pause < FIRST_PAUSE_MS ? FIRST_PAUSE_MS : pause);
    }
}

// A long, slow, lossy link between two network namespaces, which it makes and removes. Started and told what to do by
// tests/src/wan.rs.
//
// Each namespace has a TUN device; whatever IP packets the system sends there come to us, and are handed to the other
// device later. Each direction has in this order: losses at random, a queue of one round trip's worth whose tail is
// dropped, a link of fixed rate, a delay. Packets have the size of the MTU at most, and are never reordered.
//
// usage: wan NAMESPACE_A NAMESPACE_B MBIT_PER_SECOND DELAY_MS LOSS_PERCENT CONGESTION_CONTROL SECONDS
//
// It prints "ready" once the link is up, with 10.77.0.1 in A and 10.77.0.2 in B, and then obeys single characters on
// standard input, each answered by a line: '-' pulls the cable (what is sent from then on is lost; what is under way
// arrives), '+' plugs it in again, '?' tells what went in and what came out. It ends with its standard input, so with
// the process that holds the other end, and after that many seconds at the latest.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    MTU = 1500,
    PACKETS = 1 << 16,       // that may be under way in one direction
    TICK = 200 * 1000,       // ns between two looks while there is traffic: each packet's own time would cost a CPU
    LEAST_QUEUE = 64 * 1024, // bytes
};

static const int64_t SECOND = 1000000000;

struct packet {
    unsigned char bytes[MTU];
};

// A packet under way.
struct flight {
    int64_t due; // when it arrives
    int length;
    uint32_t packet;
};

struct direction {
    int from, to;
    double ns_per_byte;
    int64_t delay, longest_queue; // ns
    double loss;                  // probability
    uint64_t random;
    int64_t free_at; // when the link has sent all that is queued
    struct packet *packets;
    uint32_t *unused; // the last one used first, so that few are: they stay in the CPU's cache
    uint32_t unused_count;
    struct flight *flights; // a ring, in the order of arrival
    uint32_t first, count;
    _Atomic uint64_t bytes_in, bytes_out, lost, dropped;
};

static struct direction directions[2];
static atomic_bool pulled, over;

static void fail(const char *what) {
    fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

// splitmix64: the same losses each time, as far as the same packets come.
static double random_below_1(struct direction *d) {
    uint64_t z = d->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (double)((z ^ z >> 31) >> 11) / (double)(UINT64_C(1) << 53);
}

// --- carrying packets

// Takes one packet from the device onto the link; false where there is none.
static bool take(struct direction *d) {
    static _Thread_local struct packet spare;
    bool room = d->unused_count > 0;
    uint32_t packet = room ? d->unused[d->unused_count - 1] : 0;
    ssize_t length = read(d->from, room ? &d->packets[packet] : &spare, MTU);
    if (length <= 0) {
        return false;
    }
    d->bytes_in += (uint64_t)length;
    if (pulled || random_below_1(d) < d->loss) {
        d->lost++;
        return true;
    }
    int64_t at = now();
    int64_t start = d->free_at > at ? d->free_at : at;
    if (!room || start - at > d->longest_queue) {
        d->dropped++;
        return true;
    }
    d->unused_count--;
    d->free_at = start + (int64_t)((double)length * d->ns_per_byte);
    d->flights[(d->first + d->count++) % PACKETS] =
        (struct flight){.due = d->free_at + d->delay, .length = (int)length, .packet = packet};
    return true;
}

// Hands over what has arrived.
static void deliver(struct direction *d) {
    for (int64_t at = now(); d->count > 0 && d->flights[d->first].due <= at; d->count--) {
        struct flight *flight = &d->flights[d->first];
        // A device that is going away takes nothing any more.
        if (write(d->to, &d->packets[flight->packet], (size_t)flight->length) == flight->length) {
            d->bytes_out += (uint64_t)flight->length;
        }
        d->unused[d->unused_count++] = flight->packet;
        d->first = (d->first + 1) % PACKETS;
    }
}

static void *carry(void *argument) {
    struct direction *d = argument;
    prctl(PR_SET_TIMERSLACK, 1);
    while (!over) {
        while (take(d)) {
            if (d->count > 0 && d->flights[d->first].due <= now()) {
                deliver(d);
            }
        }
        deliver(d);
        struct pollfd packet = {.fd = d->from, .events = POLLIN};
        if (d->count == 0) {
            poll(&packet, 1, 100);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = TICK}, NULL);
        }
    }
    return NULL;
}

// --- the namespaces

static void run(const char *format, ...) {
    char command[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    if (system(command) != 0) {
        fprintf(stderr, "wan: failed: %s\n", command);
        exit(1);
    }
}

// It becomes part of a command.
static const char *plain(const char *name) {
    if (name[0] == 0 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(name) || strlen(name) > 64) {
        fprintf(stderr, "wan: unfit name: %s\n", name);
        exit(2);
    }
    return name;
}

// A TUN device of its own in a namespace.
static int device_in(const char *namespace) {
    char path[128];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), other = open(path, O_RDONLY | O_CLOEXEC);
    if (own < 0 || other < 0) {
        fail(path);
    }
    if (setns(other, CLONE_NEWNET) != 0) {
        fail("setns");
    }
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0) {
        fail("/dev/net/tun");
    }
    struct ifreq request = {.ifr_name = "wan", .ifr_flags = IFF_TUN | IFF_NO_PI};
    if (ioctl(device, TUNSETIFF, &request) != 0) {
        fail("TUNSETIFF");
    }
    if (setns(own, CLONE_NEWNET) != 0) {
        fail("setns back");
    }
    close(own);
    close(other);
    return device;
}

static int end_of_link(const char *namespace, int host, const char *congestion_control) {
    run("ip netns add %s", namespace);
    int device = device_in(namespace);
    run("ip -n %s link set lo up", namespace);
    // What the link has no room for is to be lost in its queue, not before.
    run("ip -n %s link set wan mtu %d txqueuelen 20000 up", namespace, MTU);
    run("ip -n %s address add 10.77.0.%d/24 dev wan", namespace, host);
    // Of the route, since a namespace may not be allowed to choose it for itself.
    run("ip -n %s route replace 10.77.0.0/24 dev wan src 10.77.0.%d congctl %s", namespace, host, congestion_control);
    return device;
}

static const char *names[2];

static void remove_namespaces(void) {
    for (int i = 0; i < 2; i++) {
        char command[256];
        snprintf(command, sizeof command, "ip netns delete %s 2>/dev/null", names[i]);
        // One that was not made is not there.
        if (system(command) != 0) {
            continue;
        }
    }
}

// --- what it is told

static double number(const char *text, double most) {
    char *end;
    double value = strtod(text, &end);
    if (*end != 0 || end == text || !(value >= 0 && value <= most)) {
        fprintf(stderr, "wan: unfit number: %s\n", text);
        exit(2);
    }
    return value;
}

static void prepare(struct direction *d, double mbit, double delay_ms, double loss_percent, uint64_t seed) {
    d->ns_per_byte = 8000 / mbit;
    d->delay = (int64_t)(delay_ms * 1e6);
    d->longest_queue = 2 * d->delay;
    if ((double)d->longest_queue < LEAST_QUEUE * d->ns_per_byte) {
        d->longest_queue = (int64_t)(LEAST_QUEUE * d->ns_per_byte);
    }
    d->loss = loss_percent / 100;
    d->random = seed;
    d->packets = calloc(PACKETS, sizeof *d->packets);
    d->unused = calloc(PACKETS, sizeof *d->unused);
    d->flights = calloc(PACKETS, sizeof *d->flights);
    if (!d->packets || !d->unused || !d->flights) {
        fail("no memory");
    }
    for (d->unused_count = 0; d->unused_count < PACKETS; d->unused_count++) {
        d->unused[d->unused_count] = PACKETS - 1 - d->unused_count;
    }
}

static void answer(char command) {
    if (command == '-' || command == '+') {
        pulled = command == '-';
        puts(pulled ? "pulled" : "plugged");
    } else if (command == '?') {
        for (int i = 0; i < 2; i++) {
            struct direction *d = &directions[i];
            printf("%llu %llu %llu %llu%c", (unsigned long long)d->bytes_in, (unsigned long long)d->bytes_out,
                   (unsigned long long)d->lost, (unsigned long long)d->dropped, i == 0 ? ' ' : '\n');
        }
    }
    fflush(stdout);
}

static void obey(int64_t end) {
    for (int64_t left; (left = end - now()) > 0;) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        char command;
        if (poll(&input, 1, (int)(left / 1000000) + 1) > 0) {
            if (read(0, &command, 1) != 1) {
                return;
            }
            answer(command);
        }
    }
}

int main(int count, char **arguments) {
    if (count != 8) {
        fprintf(stderr, "usage: wan NAMESPACE_A NAMESPACE_B MBIT_PER_SECOND DELAY_MS LOSS_PERCENT CONGESTION_CONTROL "
                        "SECONDS\n");
        return 2;
    }
    double mbit = number(arguments[3], 100000), delay = number(arguments[4], 10000), loss = number(arguments[5], 100);
    const char *congestion_control = plain(arguments[6]);
    int64_t end = now() + (int64_t)(number(arguments[7], 86400) * (double)SECOND);
    if (mbit < 0.01) {
        fprintf(stderr, "wan: a rate below 0.01 Mbit/s\n");
        return 2;
    }
    // What ends who started us, often our whole process group, ends our input and so us, in order.
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    names[0] = plain(arguments[1]);
    names[1] = plain(arguments[2]);
    // Several programs that make their first namespaces at once get into each other's way.
    int lock = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    flock(lock, LOCK_EX);
    atexit(remove_namespaces);
    int ends[2];
    for (int i = 0; i < 2; i++) {
        ends[i] = end_of_link(names[i], i + 1, congestion_control);
    }
    flock(lock, LOCK_UN);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        prepare(&directions[i], mbit, delay, loss, (uint64_t)i + 1);
        directions[i].from = ends[i];
        directions[i].to = ends[1 - i];
    }
    for (int i = 0; i < 2; i++) {
        if (pthread_create(&threads[i], NULL, carry, &directions[i]) != 0) {
            fail("a thread");
        }
    }
    puts("ready");
    fflush(stdout);
    obey(end);
    over = true;
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}

// A load driver for benchmarks: keep-alive connections, one request at a time on each. One thread, epoll, loopback.
//
//   load PORT PATH BODIES CONNECTIONS SECONDS WARM_S RATE [HEADER...]
//
// BODIES holds one request body a line, sent in turn; "@@@ @@@ @@@" in it becomes nine digits that no other request
// of the last hours has, so that no two requests are alike. RATE 0 is a closed loop (the next request leaves when the
// reply is there); above, requests leave at RATE a second and their latency counts from the moment they were due.
// Prints one JSON object; times in microseconds. The first byte is the first one of the reply's body: some gateways
// send their head long before they have anything to say.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, MAX_CONNECTIONS = 4096, MAX_SERIALS = 4 };

static const char SERIAL[] = "@@@ @@@ @@@";

typedef struct {
    int fd, is_busy, status, is_chunked;
    char *buffer;
    size_t used, head, length;
    uint64_t due, first_byte;
} Connection;

typedef struct {
    uint64_t *values;
    size_t n, room;
} Sample;

static Connection connections[MAX_CONNECTIONS];
static int free_list[MAX_CONNECTIONS], n_free, poller;
static char **requests;
static char *(*serials)[MAX_SERIALS];  // where each request holds one; 0 after the last
static uint64_t serial;
static size_t *request_sizes, n_requests, next_request, n_ok, n_total, n_failed;
static uint64_t warm_until, until, step;
static Sample latencies, first_bytes;
static struct sockaddr_in address;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void add(Sample *sample, uint64_t value) {
    if (sample->n == sample->room) {
        sample->room = sample->room ? sample->room * 2 : 65536;
        sample->values = realloc(sample->values, sample->room * sizeof *sample->values);
    }
    sample->values[sample->n++] = value;
}

static int compare(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static double quantile_us(const Sample *sample, double q) {
    return sample->n ? (double)sample->values[(size_t)(q * (double)(sample->n - 1) + 0.5)] / 1e3 : 0;
}

static void open_connection(Connection *connection) {
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(connection->fd, (void *)&address, sizeof address)) perror("load: connect"), exit(1);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event);
}

static void finish(Connection *connection, int is_whole) {
    uint64_t now = now_ns();
    connection->is_busy = 0;
    free_list[n_free++] = (int)(connection - connections);
    n_total++;
    if (!is_whole || connection->status != 200) n_failed++;
    else if (connection->due >= warm_until && (step || now <= until)) {  // an open loop's last ones count, too
        n_ok++;
        add(&latencies, now - connection->due);
        add(&first_bytes, connection->first_byte - connection->due);
    }
}

static void reopen(Connection *connection) {
    close(connection->fd);
    if (connection->is_busy) finish(connection, 0);
    if (n_failed > 1000) fprintf(stderr, "load: too many failures\n"), exit(1);
    open_connection(connection);
}

static void write_serial(char *at) {
    for (uint64_t i = 11, left = serial; i-- > 0;)
        if (i != 3 && i != 7) at[i] = (char)('0' + left % 10), left /= 10;
}

static void send_request(Connection *connection, uint64_t due) {
    serial = (serial + 1) % 1000000000u;
    for (int i = 0; i < MAX_SERIALS && serials[next_request][i]; i++) write_serial(serials[next_request][i]);
    const char *bytes = requests[next_request];
    size_t left = request_sizes[next_request];
    next_request = (next_request + 1) % n_requests;
    connection->is_busy = 1;
    connection->used = connection->head = connection->length = 0;
    connection->is_chunked = connection->status = 0;
    connection->due = due;
    connection->first_byte = 0;
    while (left) {
        ssize_t sent = send(connection->fd, bytes, left, MSG_NOSIGNAL);
        if (sent < 0) { reopen(connection); return; }
        bytes += sent;
        left -= (size_t)sent;
    }
}

static void read_head(Connection *connection) {
    char *end = memmem(connection->buffer, connection->used, "\r\n\r\n", 4);
    if (!end) return;
    connection->head = (size_t)(end - connection->buffer) + 4;
    connection->status = atoi(connection->buffer + 9);
    for (char *line = connection->buffer; line < end;) {
        char *stop = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        if (!strncasecmp(line, "content-length:", 15)) connection->length = strtoul(line + 15, 0, 10);
        if (!strncasecmp(line, "transfer-encoding:", 18)) connection->is_chunked = 1;
        line = stop + 2;
    }
}

static void receive(Connection *connection) {
    ssize_t got = recv(connection->fd, connection->buffer + connection->used, BUFFER - connection->used, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { reopen(connection); return; }
    if (!connection->is_busy) return;
    connection->used += (size_t)got;
    if (!connection->head) {
        read_head(connection);
        if (!connection->head) return;
    }
    size_t body = connection->used - connection->head;
    if (body && !connection->first_byte) connection->first_byte = now_ns();
    const char *tail = connection->buffer + connection->used - 5;
    if (connection->is_chunked ? body >= 5 && !memcmp(tail, "0\r\n\r\n", 5) : body >= connection->length)
        finish(connection, 1);
}

static void load_requests(const char *file_path, int port, const char *path, char **headers, int n_headers) {
    FILE *file = fopen(file_path, "r");
    if (!file) perror(file_path), exit(1);
    char *line = 0, extra[8192] = "";
    size_t room = 0;
    for (int i = 0; i < n_headers; i++) strcat(strcat(extra, headers[i]), "\r\n");
    for (ssize_t size; (size = getline(&line, &room, file)) > 0;) {
        if (line[size - 1] == '\n') line[--size] = 0;
        requests = realloc(requests, (n_requests + 1) * sizeof *requests);
        request_sizes = realloc(request_sizes, (n_requests + 1) * sizeof *request_sizes);
        request_sizes[n_requests] = (size_t)asprintf(&requests[n_requests],
            "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            "Content-Length: %zd\r\n%s\r\n%s", path, port, size, extra, line);
        serials = realloc(serials, (n_requests + 1) * sizeof *serials);
        memset(serials[n_requests], 0, sizeof *serials);
        char *at = requests[n_requests];
        for (int i = 0; i < MAX_SERIALS && (at = strstr(at, SERIAL)); i++) serials[n_requests][i] = at++;
        n_requests++;
    }
    free(line);
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc < 8) return fprintf(stderr, "usage: load PORT PATH BODIES CONNECTIONS SECONDS WARM_S RATE [HEADER...]\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    int port = atoi(argv[1]), n_connections = atoi(argv[4]);
    double seconds = atof(argv[5]), warm_s = atof(argv[6]), rate = atof(argv[7]);
    load_requests(argv[3], port, argv[2], argv + 8, argc - 8);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((unsigned short)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    serial = ((uint64_t)time.tv_sec * 100000u + (uint64_t)time.tv_nsec / 10000u) % 1000000000u;
    poller = epoll_create1(0);
    for (int i = 0; i < n_connections; i++) {
        connections[i].buffer = malloc(BUFFER);
        open_connection(&connections[i]);
        free_list[n_free++] = i;
    }
    uint64_t start = now_ns(), due = start;
    step = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
    warm_until = start + (uint64_t)(warm_s * 1e9);
    until = warm_until + (uint64_t)(seconds * 1e9);
    struct epoll_event events[256];
    for (uint64_t now = start; now < until; now = now_ns()) {
        while (n_free && (!step || due <= now)) {
            send_request(&connections[free_list[--n_free]], step ? due : now_ns());
            due += step;
        }
        uint64_t wake = step && n_free && due < until ? due : until;
        now = now_ns();
        uint64_t wait = wake > now ? wake - now : 0;
        struct timespec timeout = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        int n = epoll_pwait2(poller, events, 256, &timeout, 0);
        for (int i = 0; i < n; i++) receive(events[i].data.ptr);
    }
    for (uint64_t end = now_ns() + 5000000000u; n_free < n_connections && now_ns() < end;) {  // let the last ones end
        int n = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < n; i++) receive(events[i].data.ptr);
    }
    qsort(latencies.values, latencies.n, sizeof *latencies.values, compare);
    qsort(first_bytes.values, first_bytes.n, sizeof *first_bytes.values, compare);
    printf("{\"requests_per_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"first_byte_us\": %.1f, "
           "\"total\": %zu, \"failed\": %zu}\n",
           (double)n_ok / seconds, quantile_us(&latencies, .5), quantile_us(&latencies, .99),
           quantile_us(&first_bytes, .5), n_total, n_failed);
    return 0;
}

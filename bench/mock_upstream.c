// An OpenAI-like upstream that costs almost nothing, for benchmarks. One thread, epoll, keep-alive, loopback.
//
//   mock_upstream PORT
//
// Every POST is answered: a body that holds "stream": true (blank optional) with 50 chunks, one write each, and
// [DONE]; any other with one JSON completion of about 1 KB. A streamed body that holds "paced reply" gets its chunks
// 10 ms apart, as a model would write them.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, N_CHUNKS = 50, MAX_EVENTS = 256, GAP_NS = 10000000, MAX_PACED = 4096 };

typedef struct {
    int fd, is_gone, n_sent;  // n_sent: chunks of the paced reply under way, 0 without one
    unsigned long long due;
    size_t used;
    char *buffer;
} Client;

// Paced replies in the order in which their next chunks are due: every gap is the same, so the newest is the latest.
static Client *paced[MAX_PACED];
static size_t paced_head, n_paced;

static char whole[4096], first[1024], next[1024], last[1024];
static size_t whole_size, first_size, next_size, last_size;

static size_t chunk_of(char *out, const char *delta, const char *finish, const char *after) {
    char event[768];
    int size = sprintf(event,
        "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
        "\"model\":\"bench\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,\"delta\":%s,"
        "\"logprobs\":null,\"finish_reason\":%s}]}\n\n%s", delta, finish, after);
    return (size_t)sprintf(out, "%x\r\n%s\r\n%s", size, event, *after ? "0\r\n\r\n" : "");
}

static void prepare(void) {
    char text[800] = "", body[3000];
    while (strlen(text) < 700) strcat(text, "First look at the pool size, then at the retry policy. ");
    int size = sprintf(body,
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"bench\","
        "\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":"
        "{\"prompt_tokens\":300,\"completion_tokens\":160,\"total_tokens\":460,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0}}}", text);
    whole_size = (size_t)sprintf(whole,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
    size_t head = (size_t)sprintf(first,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    first_size = head + chunk_of(first + head, "{\"role\":\"assistant\",\"content\":\"First\"}", "null", "");
    next_size = chunk_of(next, "{\"content\":\" look at the pool size\"}", "null", "");
    last_size = chunk_of(last, "{}", "\"stop\"", "data: [DONE]\n\n");
}

static void send_all(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) { usleep(50); continue; }
        if (sent < 0) return;
        bytes += sent;
        size -= (size_t)sent;
    }
}

static unsigned long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (unsigned long long)time.tv_sec * 1000000000u + (unsigned long long)time.tv_nsec;
}

static void wait_for_next(Client *client, unsigned long long due) {
    client->due = due;
    paced[(paced_head + n_paced++) % MAX_PACED] = client;
}

static void release(Client *client) {
    free(client->buffer);
    free(client);
}

// Send every chunk that is due; return the nanoseconds until the next one, -1 without one.
static long long send_due(void) {
    for (unsigned long long now = now_ns(); n_paced; now = now_ns()) {
        Client *client = paced[paced_head];
        if (client->due > now) return (long long)(client->due - now);
        paced_head = (paced_head + 1) % MAX_PACED;
        n_paced--;
        if (client->is_gone) { release(client); continue; }
        if (client->n_sent < N_CHUNKS) {
            send_all(client->fd, next, next_size);
            client->n_sent++;
            wait_for_next(client, client->due + GAP_NS);
        } else {
            client->n_sent = 0;
            send_all(client->fd, last, last_size);
        }
    }
    return -1;
}

static void answer(Client *client, int is_stream, int is_paced) {
    int fd = client->fd;
    if (!is_stream) { send_all(fd, whole, whole_size); return; }
    send_all(fd, first, first_size);
    if (is_paced && n_paced < MAX_PACED) {
        client->n_sent = 1;
        wait_for_next(client, now_ns() + GAP_NS);
        return;
    }
    for (int i = 1; i < N_CHUNKS; i++) send_all(fd, next, next_size);
    send_all(fd, last, last_size);
}

// Return the size of the first whole request in the buffer; 0 while there is none.
static size_t request_size(const Client *client, const char **body, size_t *body_size) {
    char *end = memmem(client->buffer, client->used, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end - client->buffer) + 4, length = 0;
    for (char *line = client->buffer; line < end;) {
        char *stop = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, 0, 10);
        if (!strncasecmp(line, "transfer-encoding:", 18)) {  // chunked: the end is all that matters here
            char *tail = memmem(client->buffer + head, client->used - head, "0\r\n\r\n", 5);
            if (!tail) return 0;
            length = (size_t)(tail - client->buffer) + 5 - head;
        }
        line = stop + 2;
    }
    *body = client->buffer + head;
    *body_size = length;
    return client->used >= head + length ? head + length : 0;
}

static int serve(Client *client) {
    ssize_t got = recv(client->fd, client->buffer + client->used, BUFFER - client->used, 0);
    if (got < 0 && errno == EAGAIN) return 1;
    if (got <= 0) return 0;
    client->used += (size_t)got;
    const char *body;
    size_t body_size, size;
    while ((size = request_size(client, &body, &body_size))) {
        int is_stream = memmem(body, body_size, "\"stream\":true", 13) || memmem(body, body_size, "\"stream\": true", 14);
        answer(client, is_stream, is_stream && memmem(body, body_size, "paced reply", 11));
        memmove(client->buffer, client->buffer + size, client->used - size);
        client->used -= size;
    }
    return client->used < BUFFER;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: mock_upstream PORT\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    prepare();
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) return perror("mock_upstream"), 1;
    struct epoll_event event = {.events = EPOLLIN}, events[MAX_EVENTS];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        long long wait = send_due();
        struct timespec timeout = {wait / 1000000000, wait % 1000000000};
        int n = epoll_pwait2(poll, events, MAX_EVENTS, wait < 0 ? 0 : &timeout, 0);
        for (int i = 0; i < n; i++) {
            Client *client = events[i].data.ptr;
            if (client && serve(client)) continue;
            if (client) {
                close(client->fd);
                if (client->n_sent) client->is_gone = 1;  // released when its next chunk is due
                else release(client);
                continue;
            }
            for (int fd; (fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0;) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                client = calloc(1, sizeof *client);
                client->fd = fd;
                client->buffer = malloc(BUFFER);
                event.data.ptr = client;
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}

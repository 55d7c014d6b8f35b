// An OpenAI-like upstream that costs almost nothing, for benchmarks. One thread, epoll, keep-alive, loopback.
//
//   mock_upstream PORT
//
// Every POST is answered: a body that holds "stream": true (blank optional) with 50 chunks, one write each, and
// [DONE]; any other with one JSON completion of about 1 KB.
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
#include <unistd.h>

enum { BUFFER = 1 << 20, N_CHUNKS = 50, MAX_EVENTS = 256 };

typedef struct {
    int fd;
    size_t used;
    char *buffer;
} Client;

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

static void answer(int fd, int is_stream) {
    if (!is_stream) { send_all(fd, whole, whole_size); return; }
    send_all(fd, first, first_size);
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
        answer(client->fd, memmem(body, body_size, "\"stream\":true", 13) || memmem(body, body_size, "\"stream\": true", 14));
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
        int n = epoll_wait(poll, events, MAX_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Client *client = events[i].data.ptr;
            if (client && serve(client)) continue;
            if (client) {
                close(client->fd);
                free(client->buffer);
                free(client);
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

/* What the upstream and the load generator share: time, growing buffers, message heads and bodies of HTTP/1.1. */
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The digits of a time stamp in a paced event: nanoseconds of CLOCK_MONOTONIC, after STAMP_MARK. */
#define STAMP_MARK "sent="
#define STAMP_DIGITS 20

__attribute__((unused)) static void die(const char *what) {
    perror(what);
    exit(1);
}

__attribute__((unused)) static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((unused)) static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

__attribute__((unused)) static void set_up_socket(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) die("fcntl");
}

/* Bytes that grow at the end. */
struct bytes {
    char *data;
    size_t len, cap;
};

__attribute__((unused)) static char *bytes_room(struct bytes *b, size_t n) {
    if (b->cap - b->len < n) {
        b->cap = (b->len + n) * 2;
        b->data = realloc(b->data, b->cap);
        if (!b->data) die("realloc");
    }
    return b->data + b->len;
}

__attribute__((unused)) static void bytes_add(struct bytes *b, const void *data, size_t n) {
    memcpy(bytes_room(b, n), data, n);
    b->len += n;
}

__attribute__((unused)) static void bytes_free(struct bytes *b) {
    free(b->data);
    *b = (struct bytes){0};
}

/* The length of the message head at the start of the data, with its empty line; 0 if it has not all come. */
__attribute__((unused)) static size_t head_length(const char *data, size_t n) {
    const char *end = memmem(data, n, "\r\n\r\n", 4);
    return end ? (size_t)(end - data) + 4 : 0;
}

/* The value of the first header called `name`, or NULL; `len` gets its length. */
__attribute__((unused)) static const char *header(const char *head, size_t n, const char *name, size_t *len) {
    size_t name_len = strlen(name);
    const char *line = memchr(head, '\n', n), *end = head + n;
    for (; line && line + 1 + name_len < end; line = memchr(line + 1, '\n', (size_t)(end - line - 1))) {
        if (strncasecmp(line + 1, name, name_len) || line[1 + name_len] != ':') continue;
        const char *value = line + 2 + name_len;
        while (*value == ' ') value++;
        *len = (size_t)((const char *)memchr(value, '\r', (size_t)(end - value)) - value);
        return value;
    }
    return NULL;
}

__attribute__((unused)) static bool header_has(const char *head, size_t n, const char *name, const char *token) {
    size_t len;
    const char *value = header(head, n, name, &len);
    size_t size = strlen(token);
    for (; value && len >= size; value++, len--)
        if (!strncasecmp(value, token, size)) return true;
    return false;
}

/* A message body under way. */
struct body {
    bool chunked, done;
    enum { BODY_DATA, BODY_SIZE, BODY_EXTENSION, BODY_DATA_END, BODY_TRAILER } state;
    uint64_t left; /* of the body, or of the chunk */
    size_t line;   /* characters in this trailer line */
};

typedef void body_sink(void *arg, const char *data, size_t n);

/* The body that a head announces; `otherwise` is its length if it announces none. */
__attribute__((unused)) static struct body body_of(const char *head, size_t n, uint64_t otherwise) {
    struct body body = {.left = otherwise};
    size_t len;
    const char *value;
    if (header_has(head, n, "transfer-encoding", "chunked")) {
        body = (struct body){.chunked = true, .state = BODY_SIZE};
    } else if ((value = header(head, n, "content-length", &len))) {
        body.left = strtoull(value, NULL, 10);
    }
    body.done = !body.chunked && body.left == 0;
    return body;
}

/* Read on; how many bytes belonged to the body. */
__attribute__((unused)) static size_t body_feed(struct body *b, const char *p, size_t n, body_sink *sink, void *arg) {
    size_t i = 0;
    while (i < n && !b->done) {
        if (b->state == BODY_DATA) {
            size_t take = n - i < b->left ? n - i : (size_t)b->left;
            if (sink) sink(arg, p + i, take);
            i += take;
            b->left -= take;
            if (b->left == 0) {
                b->done = !b->chunked;
                b->state = BODY_DATA_END;
            }
            continue;
        }
        char c = p[i++];
        if (b->state == BODY_SIZE) {
            if (c >= '0' && c <= '9') b->left = b->left * 16 + (uint64_t)(c - '0');
            else if ((c | 32) >= 'a' && (c | 32) <= 'f') b->left = b->left * 16 + (uint64_t)((c | 32) - 'a' + 10);
            else if (c == '\n') b->state = b->left ? BODY_DATA : BODY_TRAILER, b->line = 0;
            else if (c == ';') b->state = BODY_EXTENSION;
        } else if (b->state == BODY_EXTENSION) {
            if (c == '\n') b->state = b->left ? BODY_DATA : BODY_TRAILER, b->line = 0;
        } else if (b->state == BODY_DATA_END) {
            if (c == '\n') b->state = BODY_SIZE, b->left = 0;
        } else if (c == '\n') {
            b->done = b->line == 0;
            b->line = 0;
        } else if (c != '\r') {
            b->line++;
        }
    }
    return i;
}

#endif

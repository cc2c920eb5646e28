/* The provider behind the contestants: HTTP/1.1 and WebSockets on one thread, with answers made beforehand.
 *
 *     upstream                     listens on a free port of 127.0.0.1 and prints its number
 *
 *     GET  /small                  13 bytes
 *     *    /upload                 takes a body of any length, answers with that length
 *     GET  ANY (WebSocket)         echoes every message
 *     POST /nN/…/chat/completions  a chat stream of N chunks (200 without /nN); …/responses: N text deltas
 *     POST /rateRxN/…              a chat stream of N events with time stamps, R a second
 *     POST /hold/…                 one event and then nothing
 *
 * The JSON body of a POST is not looked at: whether the answer streams is the contestant's affair.
 */
#include "common.h"
#include "prepared.h"
#include "sha1.h"

#include <poll.h>

/* SEND_SIZE: as much as one connection is sent in one turn; the others of a large answer's have theirs between. */
enum { READ_SIZE = 256 * 1024, SEND_SIZE = 1 << 20, WS_OUT_LIMIT = 4 << 20, HEAD_LIMIT = 64 * 1024 };

struct conn {
    int fd;
    uint32_t events; /* what epoll watches for */
    enum { IN_HEAD, IN_BODY, IN_WEBSOCKET } state;
    struct bytes head;
    struct body body;
    uint64_t body_size;
    bool closes, ended;

    const char *ready; /* what is left of a prepared answer; goes out after `out` */
    size_t ready_left;
    struct bytes out;
    size_t out_at;

    /* the WebSocket frame under way */
    uint8_t frame[14];
    unsigned frame_len;
    uint64_t payload_left;
    unsigned mask_at;
    bool frame_dropped, frame_closes;

    /* the paced stream under way */
    uint64_t due, period;
    unsigned events_left;
    struct conn *next;
};

static int poller;
static char *input;
static struct conn *first_paced, *last_paced; /* in the order in which they are due */

static void conn_close(struct conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    bytes_free(&c->head);
    bytes_free(&c->out);
    c->out_at = c->ready_left = 0;
    c->ended = true;
    if (!c->events_left) free(c); /* else the queue of paced streams drops it */
}

static void watch(struct conn *c) {
    bool full = c->out.len - c->out_at > WS_OUT_LIMIT, waiting = c->ready_left || c->out_at < c->out.len;
    uint32_t wanted = (full ? 0 : EPOLLIN) | (waiting ? EPOLLOUT : 0);
    if (wanted == c->events) return;
    struct epoll_event event = {.events = wanted, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event) < 0) die("epoll_ctl");
    c->events = wanted;
}

/* Send what can be sent in one turn; false if the connection is gone. */
static bool flush(struct conn *c) {
    for (size_t sent = 0; sent < SEND_SIZE;) {
        bool own = c->out_at < c->out.len;
        const char *data = own ? c->out.data + c->out_at : c->ready;
        size_t size = own ? c->out.len - c->out_at : c->ready_left;
        if (!size) break;
        if (size > SEND_SIZE) size = SEND_SIZE;
        ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) break;
            conn_close(c);
            return false;
        }
        sent += (size_t)n;
        if (own) {
            c->out_at += (size_t)n;
            if (c->out_at == c->out.len) c->out_at = c->out.len = 0;
        } else {
            c->ready += n;
            c->ready_left -= (size_t)n;
        }
    }
    if (c->closes && !c->ready_left && !c->out.len && !c->events_left) {
        conn_close(c);
        return false;
    }
    watch(c);
    return true;
}

static void answer_prepared(struct conn *c, const struct bytes *answer) {
    c->ready = answer->data;
    c->ready_left = answer->len;
}

static void answer(struct conn *c, const char *status, const char *body) {
    char text[512];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %s\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
                     "Content-Length: %zu\r\nServer: upstream\r\n\r\n%s",
                     status, strlen(body), body);
    bytes_add(&c->out, text, (size_t)n);
}

static void answer_paced(struct conn *c, unsigned rate, unsigned count) {
    static uint64_t number;
    bytes_add(&c->out, stream_head, strlen(stream_head));
    c->period = 1000000000u / (rate ? rate : 1);
    /* The golden ratio spreads streams that begin together over the period. */
    c->due = now_ns() + (uint64_t)((double)c->period * (0.618033988749895 * (double)(number++ % 1000000)))
                            % c->period;
    c->events_left = count;
    struct conn **place = &first_paced;
    while (*place && (*place)->due <= c->due) place = &(*place)->next;
    c->next = *place;
    *place = c;
    if (!c->next) last_paced = c;
}

/* The request has come whole. */
static void answer_request(struct conn *c) {
    const char *target = memchr(c->head.data, ' ', c->head.len), *found;
    unsigned n = 200, rate, count;
    size_t len;
    const char *space = target ? memchr(target + 1, ' ', c->head.len - (size_t)(target + 1 - c->head.data)) : NULL;
    if (!space) {
        answer(c, "400 Bad Request", "");
        return;
    }
    len = (size_t)(space - ++target);
    if (len == 6 && !memcmp(target, "/small", 6)) {
        answer(c, "200 OK", "Hello, world!");
    } else if (len == 7 && !memcmp(target, "/upload", 7)) {
        char size[24];
        snprintf(size, sizeof size, "%llu", (unsigned long long)c->body_size);
        answer(c, "200 OK", size);
    } else if (len > 6 && !memcmp(target, "/hold/", 6)) {
        bytes_add(&c->out, stream_head, strlen(stream_head));
        add_stamped_event(&c->out, now_ns());
    } else if (len > 5 && sscanf(target, "/rate%ux%u/", &rate, &count) == 2) {
        answer_paced(c, rate, count);
    } else {
        if (sscanf(target, "/n%u/", &n) != 1) n = 200;
        found = memmem(target, len, "/chat/completions", 17);
        if (found) answer_prepared(c, chat_stream(n));
        else if (memmem(target, len, "/responses", 10)) answer_prepared(c, responses_stream(n));
        else answer(c, "404 Not Found", "");
    }
}

static void begin_websocket(struct conn *c, size_t head_len) {
    size_t len;
    const char *key = header(c->head.data, head_len, "sec-websocket-key", &len);
    char accept[29], text[256];
    if (!key || len > 32) {
        answer(c, "400 Bad Request", "");
        c->closes = true;
        return;
    }
    websocket_accept(key, len, accept);
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n\r\n",
                     accept);
    bytes_add(&c->out, text, (size_t)n);
    c->state = IN_WEBSOCKET;
}

/* How many bytes the header of this frame has, as far as it has come. */
static unsigned frame_header_size(const struct conn *c) {
    if (c->frame_len < 2) return 2;
    unsigned code = c->frame[1] & 0x7f;
    return 2 + (code == 126 ? 2 : code == 127 ? 8 : 0) + (c->frame[1] & 0x80 ? 4 : 0);
}

/* A frame header is whole: answer with one of our own, unmasked. */
static void begin_frame(struct conn *c) {
    unsigned code = c->frame[1] & 0x7f, opcode = c->frame[0] & 0x0f, at = 2;
    uint64_t size = code;
    if (code >= 126) {
        size = 0;
        for (unsigned end = at + (code == 126 ? 2 : 8); at < end; at++) size = size << 8 | c->frame[at];
    }
    memmove(c->frame + 10, c->frame + at, 4); /* the mask, where frame_payload() looks for it */
    c->payload_left = size;
    c->mask_at = 0;
    c->frame_closes = opcode == 8;
    c->frame_dropped = opcode == 10;
    if (c->frame_dropped) return;
    uint8_t reply[10] = {opcode == 9 ? (uint8_t)0x8a : c->frame[0], (uint8_t)code};
    for (unsigned i = 2; i < at; i++) reply[i] = c->frame[i];
    bytes_add(&c->out, reply, at);
}

/* Echo `n` bytes of payload. */
static void frame_payload(struct conn *c, const char *p, size_t n) {
    c->payload_left -= n;
    if (c->frame_dropped) return;
    char *to = bytes_room(&c->out, n);
    if (c->frame[1] & 0x80) {
        uint8_t key[8];
        uint64_t wide, word;
        for (unsigned i = 0; i < 8; i++) key[i] = c->frame[10 + (c->mask_at + i) % 4];
        memcpy(&wide, key, 8);
        size_t i = 0;
        for (; i + 8 <= n; i += 8) {
            memcpy(&word, p + i, 8);
            word ^= wide;
            memcpy(to + i, &word, 8);
        }
        for (; i < n; i++) to[i] = (char)(p[i] ^ key[i % 8]);
        c->mask_at = (unsigned)((c->mask_at + n) % 4);
    } else {
        memcpy(to, p, n);
    }
    c->out.len += n;
}

static void websocket_feed(struct conn *c, const char *p, size_t n) {
    while (n && !c->closes) {
        if (!c->payload_left) {
            c->frame[c->frame_len++] = (uint8_t)*p++;
            n--;
            if (c->frame_len < frame_header_size(c)) continue;
            begin_frame(c);
        } else {
            size_t take = n < c->payload_left ? n : (size_t)c->payload_left;
            frame_payload(c, p, take);
            p += take;
            n -= take;
        }
        if (!c->payload_left) {
            c->frame_len = 0;
            c->closes = c->frame_closes;
        }
    }
}

/* Take what the client sent; false if the connection is gone. */
static bool feed(struct conn *c, const char *p, size_t n) {
    struct bytes rest = {0};
    if (c->state == IN_HEAD) {
        bytes_add(&c->head, p, n);
        size_t len = head_length(c->head.data, c->head.len);
        if (!len && c->head.len < HEAD_LIMIT) return true;
        if (!len || c->ready_left || c->events_left) { /* endless, or pipelined: not what we are for */
            conn_close(c);
            return false;
        }
        bytes_add(&rest, c->head.data + len, c->head.len - len);
        p = rest.data;
        n = rest.len;
        c->head.len = len;
        c->closes = header_has(c->head.data, len, "connection", "close");
        if (header_has(c->head.data, len, "upgrade", "websocket")) {
            begin_websocket(c, len);
        } else {
            c->state = IN_BODY;
            c->body = body_of(c->head.data, len, 0);
            c->body_size = c->body.chunked ? 0 : c->body.left;
            if (header_has(c->head.data, len, "expect", "100-continue"))
                bytes_add(&c->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        }
    }
    if (c->state == IN_WEBSOCKET) {
        websocket_feed(c, p, n);
    } else if (c->state == IN_BODY) {
        uint64_t count = 0;
        for (size_t i = 0; i < n && !c->body.done;) {
            /* Sizes of chunked bodies are summed here, as nobody announced the whole. */
            bool data = c->body.state == BODY_DATA;
            size_t k = body_feed(&c->body, p + i, data && n - i > c->body.left ? (size_t)c->body.left : data ? n - i : 1,
                                 NULL, NULL);
            if (data) count += k;
            i += k;
        }
        if (c->body.chunked) c->body_size += count;
        if (c->body.done) {
            answer_request(c);
            c->state = IN_HEAD;
            c->head.len = 0;
        }
    }
    bytes_free(&rest);
    return flush(c);
}

static void readable(struct conn *c) {
    ssize_t n = recv(c->fd, input, READ_SIZE, 0);
    if (n > 0) feed(c, input, (size_t)n);
    else if (n == 0 || errno != EAGAIN) conn_close(c);
}

/* Send the events that are due; nanoseconds until the next one, -1 without any. */
static int64_t run_paced(void) {
    while (first_paced) {
        struct conn *c = first_paced;
        uint64_t now = now_ns();
        if (!c->ended && c->due > now) return (int64_t)(c->due - now);
        first_paced = c->next;
        if (!first_paced) last_paced = NULL;
        c->next = NULL;
        if (c->ended) {
            free(c);
            continue;
        }
        add_stamped_event(&c->out, now_ns());
        if (--c->events_left) {
            c->due += c->period;
            if (last_paced) last_paced->next = c;
            else first_paced = c;
            last_paced = c;
        } else {
            add_chat_end(&c->out);
        }
        flush(c);
    }
    return -1;
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        set_up_socket(fd);
        c->fd = fd;
        c->events = EPOLLIN;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);

    input = malloc(READ_SIZE);
    poller = epoll_create1(0);
    struct epoll_event ready[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    if (!input || poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0) die("start");
    for (;;) {
        int64_t wait = run_paced();
        if (wait >= 0) { /* epoll_wait() knows milliseconds only, which would bundle the events of many streams */
            struct timespec time = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
            struct pollfd self = {.fd = poller, .events = POLLIN};
            ppoll(&self, 1, &time, NULL);
        }
        int n = epoll_wait(poller, ready, 256, wait >= 0 ? 0 : -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = ready[i].data.ptr;
            if (!c) {
                accept_all(listener);
            } else if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                readable(c);
            } else if (ready[i].events & EPOLLOUT) {
                flush(c);
            }
        }
    }
}

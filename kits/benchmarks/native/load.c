/* The clients in front of the contestants.
 *
 *     load http   PORT CONNECTIONS WARM REQUEST [BODY]   whole requests, with BODY bytes of upload each
 *     load ws     PORT CONNECTIONS WARM REQUEST SIZE WINDOW
 *                                                        echoed messages of SIZE bytes, WINDOW of them under way
 *     load events PORT CONNECTIONS EVENTS REQUEST        streams of EVENTS stamped events: how late each comes
 *     load hold   PORT CONNECTIONS REQUEST               connections that stay open until standard input ends
 *     load crowd  PORT CONNECTIONS SETTLE REQUEST SECONDS
 *                                                        endless streams of stamped events: how late each comes
 *     load probe  PORT PAUSE WARM REQUEST                one request after the other, PAUSE microseconds between them,
 *                                                        until standard input ends: how long each takes
 *
 * REQUEST is a file with the head of a request, and its body unless BODY is given. `http` and `ws` do WARM of what they
 * do, say "warm", read how many more to do from standard input, and do those. `events` says "begin" when every stream
 * has begun and "end" when the first one ends. `hold` says "held". `crowd` says "open" when every stream has an event,
 * "begin" SETTLE milliseconds later, and "end" after SECONDS more. `probe` says "warm" after WARM requests, which do
 * not count. What was done is the last line, in JSON; times in nanoseconds.
 */
#include "common.h"

#include <poll.h>

/* OPENING: streams of a crowd that wait for their heads at a time, fewer than a listener's queue takes. */
enum { READ_SIZE = 256 * 1024, FILLER = 256 * 1024, OPENING = 256 };

struct conn {
    int fd;
    bool writing; /* epoll watches for room to write */
    enum { IDLE, IN_HEAD, IN_BODY, IN_WEBSOCKET } state;
    struct bytes head;
    struct body body;
    uint64_t begun, body_size;
    bool closes, held;

    size_t request_at;    /* how much of the request is sent */
    uint64_t upload_left; /* how much of its body is not */

    struct bytes line; /* of the event under way */
    unsigned events;

    uint64_t to_send; /* WebSocket bytes */
    size_t frame_at;  /* where the next one is in `frames` */
    uint8_t frame[10];
    unsigned frame_len;
    uint64_t payload_left, message_size;
    uint64_t *sent; /* a ring of the times at which messages were sent */
    unsigned sent_first, sent_count;
};

static enum { HTTP, WEBSOCKET, EVENTS, HOLD, CROWD, PROBE } mode;
static struct conn *conns;
static unsigned conn_count, window = 1, stream_events;
static int poller;
static struct sockaddr_in address = {.sin_family = AF_INET};
static struct bytes request, frames; /* `frames`: the same frame, `window` times */
static size_t frame_size, message_size;
static uint64_t upload, limit, issued, done, errors, bytes_in, least = UINT64_MAX, most, begun, ended;
static char *input, *filler;
static uint64_t *samples;
static size_t sample_count, sample_cap;
static unsigned begun_streams;
static bool stream_ended, measuring;

static void sample(uint64_t value) {
    if (sample_count == sample_cap) {
        sample_cap = sample_cap ? sample_cap * 2 : 65536;
        samples = realloc(samples, sample_cap * sizeof *samples);
        if (!samples) die("realloc");
    }
    samples[sample_count++] = value;
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void say(const char *word) {
    puts(word);
    fflush(stdout);
}

static void watch(struct conn *c, bool writing) {
    if (c->writing == writing) return;
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event) < 0) die("epoll_ctl");
    c->writing = writing;
}

static void conn_open(struct conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    set_up_socket(c->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl");
    c->writing = false;
}

/* Send what there is of the request, its upload and WebSocket frames. */
static void flush(struct conn *c) {
    for (;;) {
        const char *data;
        size_t size;
        if (c->request_at < request.len) data = request.data + c->request_at, size = request.len - c->request_at;
        else if (c->upload_left) data = filler, size = c->upload_left < FILLER ? (size_t)c->upload_left : FILLER;
        else if (c->to_send) {
            data = frames.data + c->frame_at;
            size = frames.len - c->frame_at;
            if (size > c->to_send) size = (size_t)c->to_send;
        } else break;
        ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                watch(c, true);
                return;
            }
            die("send");
        }
        if (c->request_at < request.len) c->request_at += (size_t)n;
        else if (c->upload_left) c->upload_left -= (uint64_t)n;
        else {
            c->to_send -= (uint64_t)n;
            c->frame_at = (c->frame_at + (size_t)n) % frames.len;
        }
    }
    watch(c, false);
}

static void send_request(struct conn *c) {
    c->state = IN_HEAD;
    c->begun = now_ns();
    c->body_size = 0;
    c->request_at = 0;
    c->upload_left = upload;
    flush(c);
}

static void next_request(struct conn *c) {
    c->state = IDLE;
    if (issued == limit) return;
    issued++;
    send_request(c);
}

static void next_messages(struct conn *c) {
    uint64_t now = now_ns();
    while (c->sent_count < window && issued < limit) {
        issued++;
        c->sent[(c->sent_first + c->sent_count++) % window] = now;
        c->to_send += frame_size;
    }
    flush(c);
}

/* Look for stamped events in the body. */
static void event_bytes(void *arg, const char *p, size_t n) {
    struct conn *c = arg;
    c->body_size += n;
    if (mode != EVENTS && mode != CROWD) return;
    bytes_add(&c->line, p, n);
    char *start = c->line.data, *end = start + c->line.len, *stop;
    uint64_t now = now_ns();
    while ((stop = memchr(start, '\n', (size_t)(end - start)))) {
        char *mark = memmem(start, (size_t)(stop - start), STAMP_MARK, strlen(STAMP_MARK));
        if (mark && mode == CROWD) {
            if (!c->events++) begun_streams++;
            if (measuring) sample(now - strtoull(mark + strlen(STAMP_MARK), NULL, 10));
        } else if (mark) {
            if (!c->events++ && ++begun_streams == conn_count) {
                say("begin");
                begun = now;
            } else if (begun && !stream_ended) {
                sample(now - strtoull(mark + strlen(STAMP_MARK), NULL, 10));
            }
            if (c->events == stream_events && begun && !stream_ended) {
                stream_ended = true;
                ended = now;
                say("end");
            }
        }
        start = stop + 1;
    }
    c->line.len = (size_t)(end - start);
    memmove(c->line.data, start, c->line.len);
}

static void answered(struct conn *c, bool broken) {
    if (broken) {
        errors++;
    } else {
        if (c->body_size < least) least = c->body_size;
        if (c->body_size > most) most = c->body_size;
        if (mode == EVENTS && c->events != stream_events) errors++;
    }
    if (mode != EVENTS) sample(now_ns() - c->begun);
    done++;
    c->head.len = 0;
    if (c->closes || broken) {
        close(c->fd);
        conn_open(c);
        c->closes = false;
    }
    next_request(c);
}

static unsigned status_of(const struct conn *c) {
    return c->head.len > 12 ? (unsigned)atoi(c->head.data + 9) : 0;
}

static void websocket_feed(struct conn *c, const uint8_t *p, size_t n) {
    while (n) {
        if (c->payload_left) {
            size_t take = n < c->payload_left ? n : (size_t)c->payload_left;
            p += take;
            n -= take;
            c->payload_left -= take;
        } else {
            c->frame[c->frame_len++] = *p++;
            n--;
            unsigned code = c->frame[1] & 0x7f, extra = code == 126 ? 2 : code == 127 ? 8 : 0;
            if (c->frame_len < 2 || c->frame_len < 2 + extra) continue;
            c->payload_left = extra ? 0 : code;
            for (unsigned i = 0; i < extra; i++) c->payload_left = c->payload_left << 8 | c->frame[2 + i];
            if ((c->frame[0] & 15) == 8) fail("the contestant closed a WebSocket");
            if (!(c->frame[0] & 8)) c->message_size += c->payload_left;
        }
        if (c->payload_left) continue;
        c->frame_len = 0;
        if (!(c->frame[0] & 0x80) || c->frame[0] & 8) continue; /* a fragment; a ping, which may wait */
        if (c->message_size != message_size) errors++;
        c->message_size = 0;
        if (!c->sent_count) fail("more messages came than were sent");
        sample(now_ns() - c->sent[c->sent_first]);
        c->sent_first = (c->sent_first + 1) % window;
        c->sent_count--;
        done++;
    }
    next_messages(c);
}

/* The head has come; what else came with it stays in `rest`. False if it was an interim one. */
static bool take_head(struct conn *c, size_t len, struct bytes *rest) {
    unsigned status = status_of(c);
    bytes_add(rest, c->head.data + len, c->head.len - len);
    c->head.len = len;
    if (status / 100 == 1 && status != 101) {
        c->head.len = 0;
        return false;
    }
    bool websocket = mode == WEBSOCKET || (mode == HOLD && status == 101);
    if (status != (websocket ? 101 : 200)) {
        if (errors++ == 0) fprintf(stderr, "%.*s%.*s\n", (int)len, c->head.data, (int)rest->len, rest->data);
        if (websocket || mode == HOLD || mode == CROWD) fail("refused");
    }
    if (websocket) {
        c->state = IN_WEBSOCKET;
        if (!c->held) done++;
        c->held = true;
    } else {
        if (mode == CROWD) done++;
        c->state = IN_BODY;
        c->body = body_of(c->head.data, len, UINT64_MAX);
        c->closes = header_has(c->head.data, len, "connection", "close");
    }
    return true;
}

static void feed(struct conn *c, const char *p, size_t n) {
    struct bytes rest = {0};
    bytes_in += n;
    while (c->state == IN_HEAD) {
        bytes_add(&c->head, p, n);
        size_t len = head_length(c->head.data, c->head.len);
        if (!len) return;
        rest.len = 0;
        bool final = take_head(c, len, &rest);
        p = rest.data;
        n = rest.len;
        if (!final && !n) break;
    }
    if (c->state == IN_WEBSOCKET) {
        if (mode == WEBSOCKET && n) websocket_feed(c, (const uint8_t *)p, n);
    } else if (c->state == IN_BODY) {
        body_feed(&c->body, p, n, event_bytes, c);
        if (mode == HOLD) {
            if (!c->held && c->body_size) {
                c->held = true;
                done++;
            }
            if (c->body.done) fail("a stream ended that should stay open");
        } else if (mode == CROWD && c->body.done) {
            fail("a stream ended that should stay open");
        } else if (c->body.done) {
            answered(c, false);
        }
    }
    bytes_free(&rest);
}

static void readable(struct conn *c) {
    ssize_t n = recv(c->fd, input, READ_SIZE, 0);
    if (n > 0) {
        feed(c, input, (size_t)n);
    } else if (n == 0 || errno != EAGAIN) {
        if (mode == HOLD || mode == CROWD || mode == WEBSOCKET) fail("a connection was closed");
        if (c->state == IDLE) {
            close(c->fd);
            conn_open(c);
        } else {
            bool whole = c->state == IN_BODY && !c->body.chunked && c->body.left > UINT64_MAX / 2;
            c->closes = true;
            answered(c, !whole);
        }
    }
}

/* Handle what is ready, after `wait` milliseconds at most; -1 waits for it. */
static void turn(int wait) {
    struct epoll_event ready[256];
    int n = epoll_wait(poller, ready, 256, wait);
    for (int i = 0; i < n; i++) {
        if (ready[i].events & EPOLLOUT) flush(ready[i].data.ptr);
        if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(ready[i].data.ptr);
    }
}

static void run_until(uint64_t goal) {
    while (done < goal) turn(-1);
}

static void run_for(uint64_t milliseconds) {
    uint64_t end = now_ns() + milliseconds * 1000000u, now;
    while ((now = now_ns()) < end) turn((int)((end - now) / 1000000u) + 1);
}

static void run_requests(uint64_t count) {
    limit = count;
    issued = done = errors = bytes_in = most = 0;
    least = UINT64_MAX;
    sample_count = 0;
    begun = now_ns();
    for (unsigned i = 0; i < conn_count; i++) {
        if (mode == WEBSOCKET) next_messages(&conns[i]);
        else next_request(&conns[i]);
    }
    run_until(count);
    ended = now_ns();
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void report(uint64_t count) {
    qsort(samples, sample_count, sizeof *samples, by_value);
    uint64_t p50 = sample_count ? samples[sample_count / 2] : 0;
    uint64_t p99 = sample_count ? samples[(size_t)((double)sample_count * 0.99)] : 0;
    printf("{\"count\": %llu, \"errors\": %llu, \"bytes\": %llu, \"least\": %llu, \"most\": %llu, "
           "\"nanoseconds\": %llu, \"p50\": %llu, \"p99\": %llu, \"longest\": %llu}\n",
           (unsigned long long)count, (unsigned long long)errors, (unsigned long long)bytes_in,
           (unsigned long long)(least == UINT64_MAX ? 0 : least), (unsigned long long)most,
           (unsigned long long)(ended - begun), (unsigned long long)p50, (unsigned long long)p99,
           (unsigned long long)(sample_count ? samples[sample_count - 1] : 0));
}

static uint64_t read_count(void) {
    char line[32];
    say("warm");
    if (!fgets(line, sizeof line, stdin)) exit(0);
    return strtoull(line, NULL, 10);
}

static void make_frames(void) {
    static const char mask[4] = {0x37, (char)0xfa, 0x21, 0x3d};
    char head[14];
    size_t n = 2;
    head[0] = (char)(message_size > 65535 ? 0x82 : 0x81);
    if (message_size < 126) {
        head[1] = (char)(0x80 | message_size);
    } else {
        unsigned size = message_size > 65535 ? 8 : 2;
        head[1] = (char)(0x80 | (size == 8 ? 127 : 126));
        for (unsigned i = 0; i < size; i++) head[n++] = (char)(message_size >> (8 * (size - 1 - i)));
    }
    memcpy(head + n, mask, 4);
    n += 4;
    frame_size = n + message_size;
    for (unsigned i = 0; i < window; i++) {
        bytes_add(&frames, head, n);
        char *payload = bytes_room(&frames, message_size);
        for (size_t j = 0; j < message_size; j++) payload[j] = (char)(('a' + j % 26) ^ mask[j % 4]);
        frames.len += message_size;
    }
}

static void read_file(const char *path, struct bytes *into) {
    FILE *file = fopen(path, "rb");
    char part[4096];
    size_t n;
    if (!file) die(path);
    while ((n = fread(part, 1, sizeof part, file))) bytes_add(into, part, n);
    fclose(file);
}

static void run_crowd(uint64_t settle, uint64_t seconds) {
    run_until(conn_count);
    while (begun_streams < conn_count) turn(-1);
    say("open");
    run_for(settle);
    measuring = true;
    begun = now_ns();
    say("begin");
    run_for(seconds * 1000);
    measuring = false;
    ended = now_ns();
    say("end");
    report(sample_count);
}

/* Go on until standard input ends, which a request under way does not notice. */
static void run_probe(unsigned pause, uint64_t warm) {
    struct pollfd input_end = {.fd = STDIN_FILENO, .events = POLLIN};
    struct timespec time = {.tv_sec = pause / 1000000, .tv_nsec = pause % 1000000 * 1000};
    for (limit = 1;; limit++) {
        next_request(&conns[0]);
        run_until(limit);
        if (limit == warm) {
            say("warm");
            sample_count = 0;
            begun = now_ns();
        }
        if (ppoll(&input_end, 1, &time, NULL) && limit > warm) break;
    }
    ended = now_ns();
    report(sample_count);
}

int main(int argc, char **argv) {
    static const char *const modes[] = {"http", "ws", "events", "hold", "crowd", "probe"}; /* in the order of `mode` */
    if (argc < 5) fail("usage: see load.c");
    while (mode <= PROBE && strcmp(argv[1], modes[mode])) mode++;
    if (mode > PROBE) fail("usage: see load.c");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    conn_count = mode == PROBE ? 1 : (unsigned)atoi(argv[3]);
    uint64_t count = mode == HOLD ? conn_count : strtoull(argv[4], NULL, 10);
    read_file(argv[mode == HOLD ? 4 : 5], &request);
    if (mode == HTTP && argc > 6) upload = strtoull(argv[6], NULL, 10);
    if (mode == WEBSOCKET) {
        if (argc < 8) fail("usage: see load.c");
        message_size = strtoull(argv[6], NULL, 10);
        window = (unsigned)atoi(argv[7]);
        make_frames();
    }
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    input = malloc(READ_SIZE);
    filler = calloc(1, FILLER);
    conns = calloc(conn_count, sizeof *conns);
    poller = epoll_create1(0);
    if (!input || !filler || !conns || poller < 0) die("start");
    for (unsigned i = 0; i < conn_count; i++) {
        conns[i].request_at = request.len; /* nothing to send yet */
        if (mode == WEBSOCKET && !(conns[i].sent = calloc(window, sizeof *conns[i].sent))) die("calloc");
        conn_open(&conns[i]);
        if (mode == WEBSOCKET || mode == HOLD || mode == CROWD) send_request(&conns[i]);
        if (mode == CROWD) run_until(i < OPENING ? 0 : i - OPENING);
        if (mode == HOLD) run_until(i < 50 ? 0 : i - 50); /* no listener's queue has to take them all at once */
    }
    if (mode == EVENTS) {
        stream_events = (unsigned)count;
        limit = conn_count;
        for (unsigned i = 0; i < conn_count; i++) next_request(&conns[i]);
        run_until(conn_count);
        if (!stream_ended) fail("too slow: some streams had ended before others began");
        report(sample_count);
    } else if (mode == CROWD) {
        if (argc < 7) fail("usage: see load.c");
        run_crowd(count, strtoull(argv[6], NULL, 10));
    } else if (mode == PROBE) {
        run_probe((unsigned)atoi(argv[3]), count);
    } else if (mode == HOLD) {
        char line[8];
        run_until(conn_count);
        say("held");
        if (fgets(line, sizeof line, stdin)) fail("end of input was expected");
        report(conn_count);
    } else {
        if (mode == WEBSOCKET) run_until(conn_count);
        run_requests(count);
        count = read_count();
        run_requests(count);
        report(count);
    }
    return errors ? 1 : 0;
}

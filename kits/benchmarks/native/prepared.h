/* The answers of the upstream, made once and sent many times. */
#ifndef PREPARED_H
#define PREPARED_H

#include "common.h"

/* The head of every event stream. */
extern const char stream_head[];

/* A whole chunked answer with `n` chat chunks of about 250 bytes, a usage chunk and [DONE]. */
const struct bytes *chat_stream(unsigned n);

/* A whole chunked answer of the Responses API with `n` text deltas. */
const struct bytes *responses_stream(unsigned n);

/* Add one chat chunk, in an HTTP chunk of its own, that carries a time stamp in its text. */
void add_stamped_event(struct bytes *out, uint64_t now);

/* Add what ends a chat stream. */
void add_chat_end(struct bytes *out);

#endif
